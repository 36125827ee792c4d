"""Metrics: distances between sets of samples, image quality, bits per dimension.

Metrics of laws take features, of any extractor (`features.Extractor`); a figure is printed with the
extractor's name, `extractor.metric_name("fd")`. All of them compute in float64 except PSNR and
SSIM, which are differentiable JAX.
"""

from genjax.metrics.am_score import AMScore, am_score
from genjax.metrics.bits import bits_per_dim, discrete_bits_per_dim, level_width, nats_from_bits
from genjax.metrics.distances import (
    energy_distance,
    permutation_test,
    rbf_mmd2,
    sliced_wasserstein2,
    wasserstein1,
    wasserstein2,
    wasserstein_1d,
)
from genjax.metrics.features import (
    Extractor,
    cache_dir,
    cached,
    content_hash,
    data_stats,
    feature_distance,
    raw_pixels,
)
from genjax.metrics.frechet import Stats, frechet_distance, gaussian_frechet, gaussian_stats, merge_stats
from genjax.metrics.image import psnr, ssim
from genjax.metrics.inception_score import inception_score
from genjax.metrics.kid import kid, polynomial_mmd2
from genjax.metrics.kid_test import Comparison, three_sample_test
from genjax.metrics.latent import latent_path_length, slerp
from genjax.metrics.modes import ModeReport, histogram_kl, histogram_tv, mode_report, total_variation
from genjax.metrics.precision_recall import density_coverage, precision_recall
from genjax.metrics.precision_recall_curve import PRCurve, prd, prd_of_histograms
from genjax.metrics.stacked import ModeCount, class_entropy, mode_count, stacked_labels

__all__ = [
    "AMScore",
    "Comparison",
    "Extractor",
    "ModeCount",
    "ModeReport",
    "PRCurve",
    "Stats",
    "am_score",
    "bits_per_dim",
    "cache_dir",
    "cached",
    "class_entropy",
    "content_hash",
    "data_stats",
    "density_coverage",
    "discrete_bits_per_dim",
    "energy_distance",
    "feature_distance",
    "frechet_distance",
    "gaussian_frechet",
    "gaussian_stats",
    "histogram_kl",
    "histogram_tv",
    "inception_score",
    "kid",
    "latent_path_length",
    "level_width",
    "merge_stats",
    "mode_count",
    "mode_report",
    "nats_from_bits",
    "permutation_test",
    "polynomial_mmd2",
    "prd",
    "prd_of_histograms",
    "precision_recall",
    "psnr",
    "raw_pixels",
    "rbf_mmd2",
    "slerp",
    "sliced_wasserstein2",
    "ssim",
    "stacked_labels",
    "three_sample_test",
    "total_variation",
    "wasserstein1",
    "wasserstein2",
    "wasserstein_1d",
]
