"""From Gin text to experiments: reading, bindings, loading, and the cells of a sweep.

The only folder that parses Gin. It knows what may be bound, as it imports every folder below, and
says what is wrong in the words that were typed. It must not know how stages are run: no store,
no Ray, no terminal. Imports inside it go one way:

    errors < gin_state < bindings < gin_reader < load < study
    grid < sweep < load;  sweep < cells < study
"""
