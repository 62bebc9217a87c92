r"""IntraDA, GTA5 to Cityscapes: ADVENT, ranking, ADVENT again from easy to hard.

    bash scripts/intrada.sh configs/intrada_gta5.py runs/intrada_gta5

does all three; by hand, with the same folders:

    python -m uda_jax.main --config configs/intrada_gta5.py:inter \
        --workdir runs/intrada_gta5/inter
    python -m uda_jax.rank --workdir runs/intrada_gta5/inter \
        --output runs/intrada_gta5/rank
    python -m uda_jax.main --config configs/intrada_gta5.py \
        --workdir runs/intrada_gta5/intra

Pan et al., "Unsupervised Intra-domain Adaptation for Semantic Segmentation through
Self-Supervision", CVPR 2020.  `:inter` is stage 1, as configs/advent.py.  `:intra`,
the default, has the easy images with pseudo-labels for its source and the hard ones for
its target.  It starts from ImageNet's weights again, as the authors do; from stage 1's
with --config.init_from=runs/intrada_gta5/inter --config.init_new_heads=False.
`:self_training` learns from the pseudo-labels alone, the paper's with
--easy_fraction=1 in the ranking.  Their scores (mIoU): stage 1 43.8, stage 3 46.3, with
--normalize 47.0, self-training 45.5.  None has been run here.

Stage 1's weights are the authors' best of the snapshots, chosen on the test images;
here they are those of the last step.  Their --normalize was on whatever it was given
(argparse's type=bool): leave it out for the ranking by entropy alone, give it for the
other.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

FOLDER = "runs/intrada_gta5"
# Steps.  The released loop of stage 1 makes one more than its 120,000.
STEPS = {"intra": 120_000, "self_training": 120_000, "inter": 120_001}
HORIZON = 250_000


def get_config(stage: str = "intra") -> ConfigDict:
    steps = benchmarks.choose(STEPS, stage)
    config = benchmarks.base_config("gta5_to_cityscapes_advent")
    config.init_from = "data/weights/DeepLab_resnet_pretrained_imagenet.pth"
    config.init_new_heads = True
    if stage == "inter":
        config.next = tuple(
            f"rank configs/intrada_gta5.py:{name}" for name in STEPS if name != stage
        )
    else:
        for domain, part in (("source", "easy"), ("target", "hard")):
            root = f"{FOLDER}/rank/{part}.jsonl"
            config[domain] = ConfigDict(dict(reader="manifest", root=root))
        config.data.source = ConfigDict(config.data.target.to_dict())
    config.batch_size = 1
    config.steps = steps
    config.schedule = ConfigDict(
        dict(name="poly", power=0.9, warmup_steps=0, horizon=HORIZON)
    )
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=2.5e-4,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=10.0,
            decay_of="all",
            duplicates="legacy_inplace",
        )
    )
    config.discriminator = ConfigDict(
        dict(
            optimizer=dict(
                name="adam",
                learning_rate=1e-4,
                beta1=0.9,
                beta2=0.99,
                eps=1e-8,
                weight_decay=0.0,
            ),
            schedule=dict(name="poly", power=0.9, warmup_steps=0, horizon=HORIZON),
        )
    )
    config.method = ConfigDict(
        dict(
            name="advent",
            signal="self_information",
            gan="vanilla",
            adversarial_weight=0.001,
            adversarial_aux_weight=0.0002,
            aux_weight=0.1,
            class_weights="none",
            source_view="none",
            target_view="none",
            statistics="separate",
        )
    )
    if stage == "self_training":
        config.target.reader = ""  # the hard images, if there are any, are not seen
        config.discriminator = ConfigDict()
        config.method = ConfigDict(
            dict(
                name="source_only",
                source_loss="valid",
                heads="weighted",
                aux_weight=0.1,
                class_weights="none",
                view="none",
            )
        )
    config.evaluate_every = 2_000
    config.panels_every = 2_000
    config.checkpoint_every = 1_000
    return config
