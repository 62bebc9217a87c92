"""DAFormer and DACS: a mean teacher labels the target, of which source classes are
pasted into.

Hoyer, Dai, Van Gool, "DAFormer: Improving Network Architectures and Training Strategies
for Domain-Adaptive Semantic Segmentation", CVPR 2022, https://arxiv.org/abs/2111.14887,
section 3.3 and 3.4, and the released code; Tranheden et al., "DACS: Domain Adaptation
via Cross-Domain Mixed Sampling", WACV 2021, is the same with other numbers.  The
rare-class sampling of section 3.4 is `config.data.sampling`.
"""

from collections.abc import Callable

from uda_jax.methods.method import Method
from uda_jax.methods.self_training import self_training


def daformer(
    forward: Callable,
    num_classes: int,
    *,
    alpha: float = 0.999,
    threshold: float = 0.968,
    ignore_top: int = 15,
    ignore_bottom: int = 120,
    feature_weight: float = 0.005,
    feature_classes: tuple[int, ...] = (),
    feature_min_ratio: float = 0.75,
    colors: str = "daformer",
    pool_per_image: bool = False,
    source_view: str = "none",
    statistics: str = "student",
) -> Method:
    r"""L_source + w_f L_feature + L_mixed.

    L_source: cross-entropy of the source, a mean over all pixels, ignored ones too.

    L_feature: mean over the squares of the source that show a class of
    `feature_classes` of ||f - g||, f the student's deepest features and g those of the
    network that the run started from, which never changes.

    L_mixed: cross-entropy of a target image into which half of the classes of a source
    image are pasted, each pixel weighted: 1 where it is the source's, elsewhere q, the
    share of the batch's target pixels whose confidence is at least `threshold`.  The
    target's labels are the teacher's, a moving average of the student:

        teacher <- a teacher + (1 - a) student, a = min(1 - 1 / (t + 1), alpha)

    in step t, from 0, before anything else (with accumulate_steps = k it follows k
    times in a step).  Its BatchNorm takes the target batch's
    statistics; nothing of it is dropped.

    Args:
      forward: a Model's forward.
      num_classes: C.
      alpha: of the moving average, in [0, 1): 0.999, in DACS 0.99.
      threshold: tau, in [0, 1], compared with ">=".
      ignore_top, ignore_bottom: rows of a target crop that get no weight: the sky's
        border and the car's bonnet in Cityscapes' images.
      feature_weight: w_f (lambda_FD), at least 0; 0 leaves the term out, as DACS.
      feature_classes: train ids; () takes every square, whatever it shows.
      feature_min_ratio: least share of a square's pixels that show its class.
      colors: "daformer": the mixed image gets `augment.daformer_strong`; "none".
      pool_per_image: the classes are drawn of an image's own, ignored pixels left out,
        instead of, as published, of the whole batch's with those as one class more.
      source_view: colours of the source that L_source and L_feature look at, see
        `augment.SOURCE_VIEWS`; "none" as published.  What is pasted has its own.
      statistics: which batches BatchNorm's running statistics, by which the student is
        scored, follow: "student": those that it learns from, the source's and the
        mixed one, as published; "target": the target's, like the teacher's.  Training
        takes each batch's own either way.

    Returns:
      A Method.  It reads batch["source"] (image, label) and batch["target"] (image,
      "valid" where filled up) of one size.  Memory: {"teacher": Network, "reference":
      Network of the start, if feature_weight}.

    Raises:
      UserError: a number out of its range, ignored rows that leave none, sizes that
        differ, or a network without features.

    Differences from the original: where no square shows a class of `feature_classes`
    that term is 0, not NaN; pixels that fill up a small target have weight 0.
    """
    return self_training(
        forward,
        num_classes,
        alpha=alpha,
        threshold=threshold,
        ignore_top=ignore_top,
        ignore_bottom=ignore_bottom,
        feature_weight=feature_weight,
        feature_classes=feature_classes,
        feature_min_ratio=feature_min_ratio,
        colors=colors,
        pool_per_image=pool_per_image,
        source_view=source_view,
        statistics=statistics,
    )
