"""Metrics of monosemanticity: functions of tensors that say how much a dimension means one thing.

This folder knows features, labels, the features of a reference encoder and the levels of known
factors, all as tensors. It must not know datasets, encoders, stages, tables or Gin files.
"""

from monosem.metrics.base import Metric
from monosem.metrics.classes import ClassConsistency, ClassSelectivity
from monosem.metrics.factors import FactorInformation
from monosem.metrics.neighbours import MonosemanticityScore, RetrievalPrecision
from monosem.metrics.space import Dimensions, EffectiveRank, Orthogonality, Sparsity
from monosem.metrics.trees import FeatureMonosemanticity

ALL_METRICS: tuple[Metric, ...] = (
    ClassConsistency(),
    ClassSelectivity(),
    MonosemanticityScore(),
    FeatureMonosemanticity(),
    RetrievalPrecision(),
    FactorInformation(),
    Sparsity(),
    Dimensions(),
    EffectiveRank(),
    Orthogonality(),
)
