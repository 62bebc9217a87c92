from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NETWORK
from PIL import Image

from uda_jax import metrics
from uda_jax.augment import normalize
from uda_jax.errors import UserError
from uda_jax.evaluate import evaluate, make_forward
from uda_jax.inference import inference_options, probabilities, protocol
from uda_jax.labels import LABEL_SPACES
from uda_jax.models import create_model
from uda_jax.models.layers import resize_bilinear
from uda_jax.models.model import Model, Prediction
from uda_jax.sliding import (
    chip_stride,
    whole_probs,
    window_logits,
    window_probs,
    window_starts,
)

GOLDENS = np.load(Path(__file__).parent / "goldens" / "tufl_ssada.npz")
MULTI = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def det(shape, scale, freq, phase):
    i = np.arange(np.prod(shape))
    values = scale * np.sin(freq * i + phase) * np.cos(0.013 * i)
    return values.reshape(shape).astype(np.float32)


def tiny_net(image):
    """The 3x3 convolution of the goldens: 3 channels to 5 classes."""
    kernel = det((5, 3, 3, 3), 0.8, 0.9, 0.3).transpose(2, 3, 1, 0)
    logits = jax.lax.conv_general_dilated(
        image,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    return logits + det((5,), 0.5, 1.3, 0.2)


def pixel_net(image):
    """Class from the pixel alone, so that windows and padding change nothing."""
    return image * 3


class Items(list):
    label_space = None


def make_dataset(shapes, classes=3, label_shapes=None, seed=0):
    """Images whose brightest channel is the label, mostly."""
    rng = np.random.default_rng(seed)
    items = Items()
    for i, shape in enumerate(shapes):
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        where = (label_shapes or shapes)[i]
        label = rng.choice([*range(classes), 255], where).astype(np.uint8)
        items.append({"image": image, "label": label, "name": f"image{i}"})
    return items


@pytest.mark.parametrize("crop", [16, 24, 30, 48])
@pytest.mark.parametrize("kind", ["ss", "ms"])
def test_chips_equal_the_released_evaluation(crop, kind):
    window = (crop, crop)
    look = jax.jit(
        lambda image: window_probs(
            tiny_net,
            image,
            window=window,
            stride=chip_stride(window),
            scales=MULTI if kind == "ms" else (1.0,),
            flip=kind == "ms",
            average=False,
            windows_per_pass=3,
        )
    )
    summed = look(GOLDENS["eval/x"].transpose(0, 2, 3, 1))
    expected = GOLDENS[f"eval/tufl_crop{crop}_{kind}"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(summed, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(summed.argmax(-1), expected.argmax(-1))


def test_windows_of_the_published_sizes():
    # 1024 x 2048 with window 647: 8 chips; 647 x 1280: 3.
    starts = lambda h, w: [window_starts(s, 647, 540) for s in (h, w)]
    rows, columns = starts(1024, 2048)
    assert (len(rows), len(columns)) == (2, 4)
    assert rows == [0, 377] and columns[-1] == 2048 - 647
    assert starts(647, 1280) == [[0], [0, 540, 633]]
    assert chip_stride((647, 647)) == (540, 540)


@pytest.mark.parametrize("length", range(5, 40, 3))
@pytest.mark.parametrize("stride", [1, 4, 7])
def test_windows_cover_every_pixel(length, stride):
    window = 7
    starts = window_starts(length, window, stride)
    covered = {p for s in starts for p in range(s, s + window)}
    assert covered >= set(range(length))
    assert starts[0] == 0 and max(starts) <= max(0, length - window)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("window", [(5, 8), (16, 16)])
def test_averaged_windows_are_the_whole_image_for_a_pixelwise_network(flip, window):
    image = np.random.default_rng(0).normal(size=(2, 11, 13, 3)).astype(np.float32)
    whole = jax.jit(lambda x: whole_probs(pixel_net, x, flip=flip))(image)
    look = lambda x: window_probs(
        pixel_net, x, window=window, stride=(3, 5), flip=flip, windows_per_pass=4
    )
    parts = jax.jit(look)(image)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(parts.sum(-1), 1, atol=1e-5)


def test_sliding_logits_are_averaged_before_the_softmax():
    """Two windows of the middle pixel, one of the others; by hand."""
    image = np.random.default_rng(0).normal(size=(1, 1, 5, 3)).astype(np.float32)
    lean = lambda x: x + x.mean((1, 2), keepdims=True)  # sees its window alone
    left, right = lean(image[:, :, :3]), lean(image[:, :, 2:])
    middle = (left[:, :, 2:] + right[:, :, :1]) / 2
    wanted = np.concatenate([left[:, :, :2], middle, right[:, :, 1:]], 2)
    look = lambda x: window_logits(lean, x, window=(4, 3), stride=(4, 2))
    np.testing.assert_allclose(jax.jit(look)(image), wanted, atol=1e-6)
    # Through the options: the softmax comes last, and mirrors slide on their own.
    options = inference_options("sliding", (4, 3), (4, 2), flip=True, resize="logits")
    pixels = np.random.default_rng(1).integers(0, 256, (1, 1, 5, 3), np.uint8)
    scores = probabilities(lean, pixels, output_size=(1, 5), **options)
    turned = lambda x: jax.nn.softmax(look(x))
    image = normalize(pixels)
    both = turned(image) + turned(image[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(scores, both / 2, atol=1e-6)


@pytest.mark.parametrize("slide", [window_probs, window_logits])
def test_windows_per_pass_change_nothing(slide):
    image = np.random.default_rng(0).normal(size=(1, 14, 17, 3)).astype(np.float32)
    look = jax.jit(
        lambda n: slide(
            tiny_net, image, window=(6, 6), stride=(4, 4), windows_per_pass=n
        ),
        static_argnums=0,
    )
    one = look(1)
    np.testing.assert_allclose(look(5), one, atol=1e-6)
    np.testing.assert_allclose(look(100), one, atol=1e-6)


def test_flip_undoes_a_network_that_leans_to_one_side():
    def leaning(image):
        ramp = jnp.linspace(-1, 1, image.shape[2])[None, None, :, None]
        return image * 0 + jnp.concatenate([ramp, -ramp, 0 * ramp], -1)

    image = np.zeros((1, 4, 6, 3), np.float32)
    probs = jax.jit(lambda x: whole_probs(leaning, x, flip=True))(image)
    np.testing.assert_allclose(probs, probs[:, :, ::-1], atol=1e-6)


def expected_confusion(item, classes=3):
    guess = item["image"].astype(np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    guess = ((guess / 255 - mean) / std).argmax(-1)
    known = item["label"] != 255
    cells = item["label"][known].astype(int) * classes + guess[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_counts_images_of_mixed_sizes_once_whatever_the_batch(batch_size):
    shapes = [(6, 8), (5, 7), (6, 8), (6, 8), (5, 7)]
    dataset = make_dataset(shapes)
    seen = []
    report = evaluate(
        pixel_net,
        dataset,
        num_classes=3,
        batch_size=batch_size,
        progress=lambda done, total: seen.append((done, total)),
    )
    for item, counts in zip(dataset, report.confusions, strict=True):
        np.testing.assert_array_equal(counts, expected_confusion(item))
    assert report.image_names == tuple(item["name"] for item in dataset)
    assert report.confusion.dtype == np.int64 and report.num_images == 5
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize("mode", ["chips", "sliding"])
def test_window_modes_count_the_same_for_a_pixelwise_network(mode):
    dataset = make_dataset([(9, 14), (9, 14)])
    whole = evaluate(pixel_net, dataset, num_classes=3)
    parts = evaluate(
        pixel_net, dataset, num_classes=3, mode=mode, window=(6, 6), batch_size=3
    )
    np.testing.assert_array_equal(parts.confusions, whole.confusions)
    assert parts.provenance["mode"] == mode and parts.provenance["window"] == [6, 6]


def test_predictions_meet_labels_at_the_labels_size():
    # The left half is red (class 0), the right half green (class 1).
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8, 0], image[:, 8:, 1] = 255, 255
    label = np.zeros((32, 64), np.uint8)
    label[:, 32:] = 1
    dataset = Items([{"image": image, "label": label, "name": "halves"}])
    for size in (None, (16, 32), (4, 8)):
        report = evaluate(pixel_net, dataset, num_classes=3, size=size)
        assert report.confusion.sum() == label.size
        assert report.pixel_accuracy > 0.95
    assert report.provenance["size"] == [4, 8]


def test_new_weights_and_last_batches_compile_nothing():
    traces = []

    def forward(params, batch_stats, image, *, train, rngs=None, size=None):
        traces.append(image.shape)
        assert train is False
        return Prediction(image * params["scale"]), batch_stats

    model = Model(init=None, forward=forward)
    dataset = make_dataset([(6, 8)] * 5)
    reports = [
        evaluate(
            make_forward(model, {"scale": jnp.float32(scale)}, {}),
            dataset,
            num_classes=3,
            batch_size=2,
        )
        for scale in (1.0, -1.0)
    ]
    assert traces == [(2, 6, 8, 3)]
    assert reports[0].miou != reports[1].miou


def test_subset_and_names_of_the_label_space():
    dataset = make_dataset([(20, 30)], classes=13)
    dataset.label_space = LABEL_SPACES["crosscity13"]
    constant = lambda image: jnp.zeros((*image.shape[:3], 13))
    report = evaluate(constant, dataset, num_classes=13, classes=(0, 2))
    assert list(report.iou_per_class) == ["road", "building"]
    # All scores are equal: the lowest class wins, so only road is ever predicted.
    assert report.iou_per_class["building"] == 0
    share = np.mean(dataset[0]["label"][dataset[0]["label"] != 255] == 0)
    assert report.iou_per_class["road"] == pytest.approx(share)
    assert report.miou == pytest.approx(share / 2)


def test_labels_counted_at_a_reduced_size():
    # MaxSquare's protocol: the network sees 6 x 8 and is scored there too.
    dataset = make_dataset([(12, 16), (18, 8)])
    sizes = dict(size=(6, 8), label_size=(6, 8), filter="pillow_bicubic")
    report = evaluate(pixel_net, dataset, num_classes=3, **sizes)
    reduced = Items()
    for item in dataset:
        image = Image.fromarray(item["image"]).resize((8, 6), Image.BICUBIC)
        label = Image.fromarray(item["label"]).resize((8, 6), Image.NEAREST)
        reduced.append({**item, "image": np.array(image), "label": np.array(label)})
    expected = evaluate(pixel_net, reduced, num_classes=3)
    np.testing.assert_array_equal(report.confusions, expected.confusions)
    assert report.confusion.sum() <= 2 * 6 * 8
    assert report.provenance["label_size"] == [6, 8]
    assert report.provenance["filter"] == "pillow_bicubic"


def test_further_means_are_reported_beside_the_first():
    dataset = make_dataset([(6, 8)] * 2)
    report = evaluate(pixel_net, dataset, num_classes=3, also={"2 classes": (0, 2)})
    expected = np.mean([report.iou[0], report.iou[2]])
    assert report.miou_also == {"2 classes": pytest.approx(expected)}
    again = metrics.Report.from_json(report.to_json())
    assert again.miou_also == report.miou_also
    assert "mIoU (2 classes)" in report.table()


def test_sharded_batches_count_the_same():
    mesh = jax.make_mesh(
        (len(jax.devices()),), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    dataset = make_dataset([(6, 8)] * 3)
    batch = 2 * len(jax.devices())
    sharded = evaluate(
        pixel_net, dataset, num_classes=3, batch_size=batch, sharding=sharding
    )
    single = evaluate(pixel_net, dataset, num_classes=3)
    np.testing.assert_array_equal(sharded.confusions, single.confusions)


def test_provenance_reaches_the_report():
    report = evaluate(
        pixel_net,
        make_dataset([(6, 8)]),
        num_classes=3,
        scales=(0.5, 1),
        flip=True,
        provenance={"network": "bisenet", "step": 12},
    )
    expected = {"network": "bisenet", "step": 12, "scales": [0.5, 1.0], "flip": True}
    assert expected.items() <= report.provenance.items()
    assert metrics.Report.from_json(report.to_json()).miou == report.miou


def test_what_cannot_be_evaluated_is_said():
    dataset = make_dataset([(6, 8)])
    with pytest.raises(UserError, match="dataset is empty"):
        evaluate(pixel_net, Items(), num_classes=3)
    with pytest.raises(UserError, match="network has 3 classes and the dataset 19"):
        evaluate(pixel_net, dataset, num_classes=19)
    with pytest.raises(UserError, match='"image0" holds train id'):
        evaluate(lambda x: x[..., :2], dataset, num_classes=2)
    unlabelled = Items([{k: v for k, v in dataset[0].items() if k != "label"}])
    with pytest.raises(UserError, match='"image0" has no label'):
        evaluate(pixel_net, unlabelled, num_classes=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "hole"}, 'did you mean "whole"'),
        ({"mode": "chips"}, "needs window="),
        ({"mode": "chips", "window": (6, 6), "stride": (2, 2)}, "remove stride"),
        ({"mode": "sliding", "window": (6,)}, "two positive whole numbers"),
        ({"mode": "sliding", "window": (6, 6), "stride": (7, 1)}, "gaps"),
        ({"window": (6, 6)}, "takes no window"),
        ({"scales": ()}, "positive numbers"),
        ({"scales": (0.0,)}, "positive numbers"),
        ({"resize": "logit"}, 'did you mean "logits"'),
        ({"mode": "chips", "resize": "logits"}, "choose probabilities, or the mode"),
        ({"mode": "sliding", "resize": "direct"}, "choose probabilities or logits, or"),
        ({"resize": "direct", "align_corners": False}, "takes no align_corners=False"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        inference_options(**options)


# --- protocols ------------------------------------------------------------------------


def coarse_net(image, size=None):
    """Logits at a quarter of the sides, grown as DeepLabV2 does; `size` as there."""
    batch, height, width, channels = image.shape
    blocks = image.reshape(batch, height // 4, 4, width // 4, 4, channels)
    logits = 3 * tiny_net(blocks.mean((2, 4)))
    return resize_bilinear(logits, size or (height, width), align_corners=True)


def grow(x, size, align_corners):
    """PyTorch's bilinear interpolation of [H, W, C], pixel by pixel in float64."""

    def axis(x, out):
        i, n = np.arange(out), len(x)
        at = i * (n - 1) / (out - 1) if align_corners else (i + 0.5) * n / out - 0.5
        at = np.clip(at, 0, n - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape(-1, *[1] * (x.ndim - 1))
        return x[low] * (1 - part) + x[np.minimum(low + 1, n - 1)] * part

    return axis(axis(x, size[0]).swapaxes(0, 1), size[1]).swapaxes(0, 1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


SEEN, LABEL = (16, 24), (31, 50)
PROTOCOLS = {
    # coarse logits, size of the input, size of the label -> what is averaged over flips
    "probabilities": lambda z, seen, out: softmax(grow(z, seen, True)),
    "logits": lambda z, seen, out: softmax(grow(grow(z, seen, True), out, False)),
    "direct": lambda z, seen, out: softmax(grow(z, out, True)),
}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("resize", PROTOCOLS)
def test_published_protocols_restated_in_numpy(resize, flip):
    image = np.random.default_rng(3).integers(0, 256, (*SEEN, 3), dtype=np.uint8)
    corners = resize != "logits"
    options = inference_options(flip=flip, resize=resize, align_corners=corners)
    look = jax.jit(lambda x: probabilities(coarse_net, x, output_size=LABEL, **options))
    passes = []
    for x in [image, image[:, ::-1]][: 1 + flip]:
        coarse = coarse_net(normalize(jnp.asarray(x))[None], size=(4, 6))[0]
        passes.append(PROTOCOLS[resize](np.float64(coarse), SEEN, LABEL))
    passes[1:] = [p[:, ::-1] for p in passes[1:]]
    expected = np.mean(passes, 0)
    if resize == "probabilities":
        expected = grow(expected, LABEL, True)
    np.testing.assert_allclose(look(image[None])[0], expected, atol=2e-6)


def test_protocols_differ_and_say_so():
    dataset = make_dataset([SEEN], classes=5, label_shapes=[LABEL])
    told = {
        "probabilities": "probabilities resized to the label (31 x 50)",
        "logits": "logits resized (align_corners=False) to the label (31 x 50)",
        "direct": "the network's coarse logits resized to the label (31 x 50)",
    }
    counts = []
    for resize, words in told.items():
        report = evaluate(
            coarse_net,
            dataset,
            num_classes=5,
            resize=resize,
            align_corners=resize != "logits",
        )
        assert report.protocol == f"image 16 x 24, {words}, no flip"
        assert report.provenance["resize"] == resize
        counts.append(report.confusion.tolist())
    assert counts[0] != counts[1] != counts[2] != counts[0]


@pytest.mark.parametrize(
    ("shapes", "options", "told"),
    [
        (
            [(12, 16), (8, 8)],
            {"size": (6, 8), "label_size": (6, 8), "flip": True},
            "image and label 6 x 8 by area, labels resized (not comparable with "
            "full-size ones), with the mirror image",
        ),
        ([(12, 16)], {"label_size": (12, 16)}, "image and label 12 x 16, no flip"),
        (
            [(12, 16), (8, 8)],
            {"scales": (0.5, 1)},
            "image and label 8 x 8 or 12 x 16, scales 0.5 1, no flip",
        ),
        (
            [(12, 16)],
            {"label_size": (6, 8), "filter": "pillow_bicubic"},
            "image 12 x 16, probabilities resized to the label (6 x 8), labels resized "
            "by pillow_bicubic (not comparable with full-size ones), no flip",
        ),
        (
            [(12, 16)],
            {"mode": "chips", "window": (6, 6)},
            "image and label 12 x 16, windows 6 x 6 every 5 x 5, summed, no flip",
        ),
        (
            [(12, 16)],
            {"mode": "sliding", "window": (6, 6), "resize": "logits"},
            "image and label 12 x 16, windows 6 x 6 every 4 x 4, logits averaged, no "
            "flip",
        ),
    ],
)
def test_protocol_in_words(shapes, options, told):
    report = evaluate(pixel_net, make_dataset(shapes), num_classes=3, **options)
    assert report.protocol == told
    assert f"Protocol: {told}.\n" in report.table() + "\n"


def test_protocols_of_many_sizes_tell_which():
    look = inference_options()
    same = lambda *sizes: {(size, size, size) for size in sizes}
    sides = [(6, 8), (6, 9), (7, 9), (9, 9)]
    told = protocol(look, same(*sides))
    assert "of 4 sizes, 6-9 x 8-9 (set " in told
    assert told == protocol(look, same(*sides[::-1]))
    others = protocol(look, same((6, 8), (8, 9), (7, 9), (9, 9)))
    assert others != told and "of 4 sizes, 6-9 x 8-9 (set " in others


def test_a_network_grows_its_logits_to_any_size_at_once():
    model = create_model(num_classes=5, **NETWORK)
    params, stats = model.init(jax.random.key(0))
    forward = make_forward(model, params, stats)
    sizes = [(5, 6), None, (57, 23)]  # the first is that of the coarse logits
    image = np.random.default_rng(0).normal(size=(1, 33, 41, 3)).astype(np.float32)
    coarse, *grown = jax.jit(lambda x: [forward(x, size=s)[0] for s in sizes])(image)
    for size, logits in zip(sizes[1:], grown, strict=True):
        expected = grow(np.float64(coarse), size or (33, 41), True)
        np.testing.assert_allclose(logits, expected, atol=1e-6)
