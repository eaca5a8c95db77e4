"""What axes are worth: accuracy on features as they are less accuracy on rotated ones.

    gains < turned < drawn, measures < report

This folder knows tables of results and their statistics. It must not know features, encoders,
experiments or Gin files.
"""
