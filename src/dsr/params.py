"""params.yaml as frozen dataclasses: every key is known, typed and checked, and an error names the key.

One dataclass a section. A stage receives the sections that it uses; dvc.yaml lists the same keys, so that a
change recomputes what depends on it and nothing else.
"""

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from dsr.console import StageError


@dataclass(frozen=True)
class Simulate:
    """Rendered clips of a physics world with exact truth (simulator/)."""

    num_clips: int = 64
    """Clips to make; ids are sim_000000, sim_000001, …"""
    seed: int = 1
    """Clip i depends on (seed, i) alone, so more clips leave the first ones as they are."""
    duration: tuple[float, float] = (4.0, 8.0)
    """Shortest and longest clip in seconds; each clip draws its own."""
    fps: int = 8
    size: tuple[int, int] = (320, 240)
    """Width and height in pixels; both even (H.264)."""
    bodies: tuple[int, int] = (3, 6)
    """Fewest and most bodies in a world."""
    render: bool = True
    """False writes truth files alone (trajectories, boxes, visibility): thousands of clips in seconds."""

    def __post_init__(self) -> None:
        require(self.num_clips >= 1, "simulate.num_clips", "at least 1")
        require(0 < self.duration[0] <= self.duration[1], "simulate.duration", "[shortest, longest], both > 0")
        require(self.fps >= 1, "simulate.fps", "at least 1")
        require(all(s >= 64 and s % 2 == 0 for s in self.size), "simulate.size", "even numbers, at least 64")
        require(2 <= self.bodies[0] <= self.bodies[1], "simulate.bodies", "[fewest, most], at least 2")


@dataclass(frozen=True)
class Clips:
    """Which clips, and how their table is read (clips/)."""

    source: str = "simulated"
    """Folder under data/raw/ that holds the videos and their clips.csv."""
    source_video_pattern: str = ""
    """Regular expression whose first group is a clip id's source video; Koala-36M: '^(.+)_\\d+$'. Without it a
    clips.csv column `source_video` is used, and without that each clip is its own source video."""

    def __post_init__(self) -> None:
        require(
            bool(self.source) and not set(self.source) & set("/\\") and not self.source.startswith("."),
            "clips.source",
            "the name of a folder under data/raw/",
        )
        try:
            groups = re.compile(self.source_video_pattern).groups
        except re.error as error:
            raise ValueError(f"clips.source_video_pattern is no regular expression: {error}") from None
        require(groups >= 1 or not self.source_video_pattern, "clips.source_video_pattern", "a pattern with a group")


@dataclass(frozen=True)
class Curation:
    """Agents, objects, dynamic or static, category (curation/)."""

    backend: Literal["rules"] = "rules"
    """`rules` reads the caption with a WordNet lexicon, offline."""
    max_nouns: int = 12
    """Most agents and objects kept for a clip, in the order in which the caption names them."""

    def __post_init__(self) -> None:
        require(self.max_nouns >= 1, "curation.max_nouns", "at least 1")


@dataclass(frozen=True)
class CueNoise:
    """Noise of the `simulated` backend, seeded by clip; every value 0 gives the exact truth."""

    depth: float = 0.02
    """Relative standard deviation of a fully seen body's depth: a part that the clip shares, one that drifts from
    frame to frame, and the body's own. Box edges jitter by the same share of the box."""
    pose: float = 0.002
    """Standard deviation of the camera's position on each axis, relative to the scene's median depth, and of its
    rotation about each axis in radians; half drift, half jitter."""
    angle: float = 4.0
    """Standard deviation of an agent's orientation about each of its axes, in degrees; half bias, half jitter."""
    missed: float = 0.02
    """Share of visible (track, frame) pairs that the detector misses, in runs of about two frames."""

    def __post_init__(self) -> None:
        for name in ("depth", "pose", "angle", "missed"):
            require(0 <= getattr(self, name) < float("inf"), f"cues.simulated.noise.{name}", "at least 0 and finite")
        require(self.missed < 1, "cues.simulated.noise.missed", "below 1")


@dataclass(frozen=True)
class SimulatedCues:
    """The `simulated` backend (cues/backends/simulated.py)."""

    seed: int = 1
    """Of the noise; a clip's own depends on (seed, clip_id) alone."""
    noise: CueNoise = field(default_factory=CueNoise)

    def __post_init__(self) -> None:
        require(self.seed >= 0, "cues.simulated.seed", "at least 0")


@dataclass(frozen=True)
class FoundationCues:
    """The `foundation` backend (cues/backends/foundation.py)."""

    preset: Literal["published", "tiny"] = "published"
    """`tiny`: small models with random weights, which see nothing; the same code without weights, for trying it out."""
    weights: str = "models/weights"
    """Folder of the published checkpoints, from the project folder on; `dsr weights` lists them."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto`: every GPU that there is, one process each, else the CPU."""
    reconstruction: Literal["pi3"] = "pi3"
    """Model of points and camera poses (perception/reconstruction.py)."""
    key_frames: int = 4
    """Frames that the detector sees, spread over the clip; 1 to 4."""
    box_threshold: float = 0.35
    """Least probability of a detection's best token."""
    text_threshold: float = 0.25
    """Least probability of a token of the word that a detection is called by."""
    nms_iou: float = 0.7
    """Detections in a frame whose boxes overlap more (intersection over union) are one."""
    match_iou: float = 0.5
    """Masks in a frame that overlap at least this much are one thing."""
    max_tracks: int = 16
    """Most things followed in a clip, the first found first."""
    min_orientation_box: float = 0.02
    """Smallest side of an agent's box, as a share of the image's, for which its orientation is estimated; no question
    mentions a smaller one (`qa.min_box`)."""
    batch_size: int = 32
    """Pictures at a time; halved where they do not fit into memory."""
    decoders: int = 2
    """Processes that decode clips ahead, for each that runs models."""
    timeout: float = 1800.0
    """Seconds after which a clip that is not finished counts as failed."""
    seed: int = 1
    """Of the preset `tiny`'s weights."""

    def __post_init__(self) -> None:
        require(1 <= self.key_frames <= 4, "cues.foundation.key_frames", "1 to 4")
        for name in ("box_threshold", "text_threshold", "nms_iou", "match_iou", "min_orientation_box"):
            require(0 <= getattr(self, name) <= 1, f"cues.foundation.{name}", "between 0 and 1")
        for name in ("max_tracks", "batch_size", "decoders"):
            require(getattr(self, name) >= 1, f"cues.foundation.{name}", "at least 1")
        require(self.timeout > 0, "cues.foundation.timeout", "above 0")
        require(self.seed >= 0, "cues.foundation.seed", "at least 0")
        require(bool(self.weights), "cues.foundation.weights", "a folder")


@dataclass(frozen=True)
class Cues:
    """3D cues (cues/)."""

    backend: Literal["simulated", "annotated", "foundation"] = "simulated"
    """`simulated` reads the simulator's truth; `annotated` reads camera poses and tracks from files; `foundation` sees
    them in the video with published models."""
    num_frames: int = 32
    """Uniformly spaced frames a clip; a clip with fewer is refused by the catalogue."""
    point_map_size: tuple[int, int] = (24, 32)
    """Height and width of the reduced point map."""
    max_clips_failed: int = 1000
    """The stage stops with the reasons once more clips than this have failed."""
    simulated: SimulatedCues = field(default_factory=SimulatedCues)
    foundation: FoundationCues = field(default_factory=FoundationCues)

    def __post_init__(self) -> None:
        require(self.num_frames >= 8, "cues.num_frames", "at least 8")
        require(min(self.point_map_size) >= 4, "cues.point_map_size", "[height, width], at least 4")
        require(self.max_clips_failed >= 0, "cues.max_clips_failed", "at least 0")


@dataclass(frozen=True)
class Ensemble:
    """Perturbed copies of the cues on which an answer must hold (questions/engine/scene.py)."""

    members: int = 16
    margin: float = 1.15
    """Every uncertainty is multiplied by it."""
    max_jitter: float = 0.1
    """Cap on the relative depth jitter that is read off a track's own frame-to-frame noise."""
    across: float = 0.25
    """Noise across the viewing ray, as a share of that along it."""
    angle: float = 4.0
    """Standard deviation of an agent's axes in degrees, at least; more where a track's axes jitter more."""
    max_angle: float = 20.0
    """Cap on what is read off that jitter, in degrees."""
    camera: float = 0.002
    """Standard deviation of the camera's position (in median depths) and rotation (radians)."""

    def __post_init__(self) -> None:
        require(self.members >= 1, "qa.ensemble.members", "at least 1")
        for name in ("margin", "max_jitter", "across", "angle", "max_angle", "camera"):
            require(getattr(self, name) >= 0, f"qa.ensemble.{name}", "at least 0")


@dataclass(frozen=True)
class Steps:
    """Frames between two key moments, the choices for each signal (for 32 frames)."""

    dis: tuple[int, ...] = (2, 3, 4, 5, 6)
    dir: tuple[int, ...] = (1, 2, 3, 4, 6)
    ori: tuple[int, ...] = (1, 2, 3, 4)
    spd: tuple[int, ...] = (3, 4, 5, 6)
    spd_comp: tuple[int, ...] = (3, 4, 5, 6)
    dir_pred: tuple[int, ...] = (3, 4, 5, 6)
    non_temp: tuple[int, ...] = (2, 3)

    def __post_init__(self) -> None:
        for name in ("dis", "dir", "ori", "spd", "spd_comp", "dir_pred", "non_temp"):
            steps = getattr(self, name)
            require(bool(steps) and min(steps) >= 1, f"qa.steps.{name}", "a list of frame counts, each at least 1")


@dataclass(frozen=True)
class Audit:
    """Shortcuts, balance and label stability of the question pool (audit/audit.py)."""

    seed: int = 1
    """Seeds samples, attackers, resamples and fresh noise."""
    max_blind_accuracy: float = 0.285
    """The stage fails where the strongest attacker's accuracy, without the video, is above this for sure: the
    lower end of its 95 % interval is. A small pool is thus not failed for its sampling noise (600 questions: 3.5
    points), while a large one must be as good as it says."""
    max_type_blind_accuracy: float = 0.32
    """The same for every type, at a level that holds for all types together."""
    max_questions: int = 20_000
    """Questions that the attackers train and are tested on; more are sampled by whole quartets."""
    max_clips: int = 500
    """Clips whose labels are checked; more are sampled."""
    draws: int = 4
    """Versions of a clip's cues for each shape of noise that labels are checked with."""
    bootstrap: int = 1000
    """Resamples over source videos behind each 95 % interval."""

    def __post_init__(self) -> None:
        for name in ("max_blind_accuracy", "max_type_blind_accuracy"):
            require(0 < getattr(self, name) <= 1, f"qa.audit.{name}", "between 0 and 1")
        for name in ("max_questions", "max_clips", "draws"):
            require(getattr(self, name) >= 1, f"qa.audit.{name}", "at least 1")
        require(self.bootstrap >= 100, "qa.audit.bootstrap", "at least 100")
        require(self.seed >= 0, "qa.audit.seed", "at least 0")


@dataclass(frozen=True)
class QA:
    """Questions with derived answers (questions/)."""

    seed: int = 1
    candidates: int = 3072
    """About how many candidate questions of each clip and type are looked at, at most, spread over its forms: all
    intervals of as many viewers and targets as that allows. A free-form family draws a quarter of its part. One of the
    same viewer, targets and answer is then tried on the whole ensemble; several, where a clip has few, or many are
    looked at."""
    keep_per_clip_type: int = 80
    """Candidates of a clip and type that enter the matching, the rarer answers first."""
    max_per_clip: int = 30
    """Most questions of a clip."""
    max_per_clip_type: int = 6
    """Most questions of a clip and type."""
    max_questions: int | None = None
    """Most questions in all; whole quartets, spread over the types."""
    num_blocks: int | None = None
    """Blocks of source videos; quartets stay inside one. None: by the number of source videos."""
    steps: Steps = field(default_factory=Steps)
    ratio_tolerance: float = 0.2
    """A distance within this ratio is about the same."""
    speed_tolerance: float = 0.5
    """A speed within this ratio is about the same."""
    dead_zone: float = 0.3
    """A direction's component below this is neither side."""
    min_distance: float = 0.08
    """Floors, in median depths; below one there is no state and the question is not asked."""
    min_displacement: float = 0.15
    min_direction: float = 0.15
    max_box_overlap: float = 0.5
    """Two tracks whose boxes overlap more (intersection over union) are not asked about together."""
    min_box: float = 0.02
    """Smallest side of a mentioned box, as a share of the image's."""
    answer_margin: float = 0.4
    """Smallest distance between two options of a quartet, a moment (questions/engine/answers.py)."""
    prediction_margin: float = 2.0
    """The same for predictions."""
    max_advantage: float = 2.0
    """Most nats by which the texts of a form's questions may speak for their right options, a block's questions
    together (questions/quartets/text_balance.py)."""
    balance_clips: int = 512
    """Clips on which it is learned what texts tell of answers."""
    ensemble: Ensemble = field(default_factory=Ensemble)
    audit: Audit = field(default_factory=Audit)

    def __post_init__(self) -> None:
        for name in ("candidates", "keep_per_clip_type", "max_per_clip", "max_per_clip_type", "balance_clips"):
            require(getattr(self, name) >= 1, f"qa.{name}", "at least 1")
        for name in ("max_questions", "num_blocks"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"qa.{name}", "at least 1, or null")
        for name in (
            "ratio_tolerance",
            "speed_tolerance",
            "min_distance",
            "min_displacement",
            "min_direction",
            "max_advantage",
        ):
            require(getattr(self, name) > 0, f"qa.{name}", "above 0")
        require(0 < self.dead_zone < 0.57, "qa.dead_zone", "between 0 and 0.57 (a direction must have a side)")
        for name in ("max_box_overlap", "min_box"):
            require(0 <= getattr(self, name) <= 1, f"qa.{name}", "between 0 and 1")
        require(0 < self.answer_margin <= 2, "qa.answer_margin", "between 0 and 2")
        require(0 < self.prediction_margin <= 6, "qa.prediction_margin", "between 0 and 6")


@dataclass(frozen=True)
class Split:
    """Training set and benchmark (questions/split.py)."""

    seed: int = 1
    """Decides between sets of blocks that are equally near to what is asked for."""
    bench_fraction: float = 0.3
    """Share of the questions that goes to the benchmark, as near as whole blocks allow."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "split.seed", "at least 0")
        require(0 < self.bench_fraction < 1, "split.bench_fraction", "between 0 and 1")


@dataclass(frozen=True)
class GSM:
    """Geometry Selection Module (model/gsm.py)."""

    fusion: Literal["none", "add", "gsm"] = "gsm"
    """`none`: video alone; `add`: geometry added to the vision tokens; `gsm`: selected geometry tokens."""
    num_tokens: int = 32
    """Geometry tokens N that follow the vision tokens (the published model: 32)."""
    encoders: tuple[Literal["point_map", "tracks", "pi3"], ...] = ("point_map", "tracks")
    """Where 3D tokens come from: the cells of the point map, the tracked things and the camera, pi3's picture encoder
    on the frames (the published model), or several of these."""

    def __post_init__(self) -> None:
        require(self.num_tokens >= 1, "gsm.num_tokens", "at least 1")
        require(len(self.encoders) >= 1, "gsm.encoders", "a list of at least one")
        require(len(set(self.encoders)) == len(self.encoders), "gsm.encoders", "a list without repeats")


@dataclass(frozen=True)
class Model:
    """The vision-language model that training starts from (model/presets.py)."""

    preset: Literal["tiny", "qwen2.5-vl-7b"] = "tiny"
    """`tiny`: the Qwen2.5-VL architecture, small and randomly initialised. `qwen2.5-vl-7b`: the published recipe, which
    gives the keys of `gsm`, `model` and `train` that are left out the values of PRESETS."""
    backbone: str = ""
    """Folder with a published Qwen2.5-VL, such as models/weights/Qwen2.5-VL-7B-Instruct, or a model of this project; ''
    makes a tiny one."""
    pi3: str = "models/weights/pi3/model.safetensors"
    """pi3's checkpoint, for the encoder `pi3` on a published backbone."""
    max_pixels: int = 4704
    """Most pixels of a frame (the published recipe: 230400); a vision token sees 28 x 28 of them in two frames."""
    seed: int = 1
    """Seeds the weights that are drawn at random."""

    def __post_init__(self) -> None:
        require(self.max_pixels >= 28 * 28, "model.max_pixels", "at least 784 (28 x 28)")
        require(self.seed >= 0, "model.seed", "at least 0")


@dataclass(frozen=True)
class Train:
    """Fine-tuning (training/)."""

    steps: int = 600
    """Optimizer steps on questions with video and geometry; 0 trains for `epochs`."""
    epochs: float = 1.0
    """Passes over the questions, where `steps` is 0."""
    text_steps: int = 300
    """Steps before these on options alone, with a noisy copy of the right one: a lesson for a model from random
    initialisation (training/curriculum.py). 0 for a published backbone."""
    geometry_steps: int = 300
    """Steps before all others on geometry alone: the GSM learns to spell the right option, without the language model.
    For fusion `gsm`; 0 for a published backbone."""
    option_loss: float = 1.0
    """Weight of a loss that has the model choose among the four options, after the prompt and at the end of each
    (training/curriculum.py); 0 for a published backbone."""
    state_loss: float = 1.0
    """Weight of a loss that has the geometry tokens spell the right option rather than the others
    (training/curriculum.py); 0 for a published backbone."""
    max_questions: int = 0
    """Train on so many of the questions, drawn at random; a smaller set is part of a larger one. 0: all."""
    shuffle_options: bool = True
    """Give a question's options in a new order each time it is used."""
    batch_size: int = 16
    """Questions in one forward and backward pass."""
    accumulation: int = 1
    """Passes summed up before a step; batch_size x accumulation x GPUs is the effective batch (published: 32)."""
    learning_rate: float = 1e-3
    """Of the language model (published: 2e-7)."""
    gsm_learning_rate: float = 2e-3
    """Of the vision tower's merger, the geometry encoders and the GSM (published: 1e-6)."""
    train_vision_tower: bool = False
    """Train the vision tower too, with `learning_rate`; the published recipe keeps it as it is."""
    lr_warmup: float = 0.03
    """Share of the steps of each lesson over which the learning rates rise; a cosine takes them down after that."""
    weight_decay: float = 0.01
    """AdamW, on matrices alone."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    bf16: bool = False
    """Compute in bfloat16 (GPUs). Trained parameters stay in float32, or have a copy in it (DeepSpeed): a step of 2e-7
    is lost in bfloat16."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    shared_prefix: bool = False
    """Encode a video once for the questions about it that are in one batch (model/shared_prefix.py). The same loss and
    gradients for less; it pays where videos are long."""
    questions_per_clip: int = 4
    """With `shared_prefix`, most questions about the same frames of a clip that follow one another."""
    deepspeed: Literal["", "zero2", "zero3", "zero3_offload"] = ""
    """Share optimizer state (zero2), parameters too (zero3), and keep both in the host's memory (zero3_offload):
    configs/deepspeed/."""
    lora_rank: int = 0
    """Above 0, train low-rank adapters (peft) of the language model in the place of all of it; they are merged into
    the model that is saved. With a learning rate of about 1e-4."""
    tensorboard: bool = False
    """Write TensorBoard's files too, to models/checkpoints/tensorboard/."""
    save_steps: int = 200
    """Steps between two checkpoints, from which a killed run goes on."""
    cache_gib: float = 2.0
    """Memory for decoded frames and cues; clips beyond it are read again when their turn comes."""
    seed: int = 1
    """Seeds the order of the questions, of their options, and the warm-up's noise."""

    def __post_init__(self) -> None:
        at_least_0 = (
            "steps",
            "text_steps",
            "geometry_steps",
            "max_questions",
            "option_loss",
            "state_loss",
            "weight_decay",
            "cache_gib",
        )
        for name in (*at_least_0, "lora_rank", "seed"):
            require(getattr(self, name) >= 0, f"train.{name}", "at least 0")
        for name in ("batch_size", "accumulation", "questions_per_clip", "save_steps"):
            require(getattr(self, name) >= 1, f"train.{name}", "at least 1")
        for name in ("epochs", "learning_rate", "gsm_learning_rate", "max_grad_norm"):
            require(getattr(self, name) > 0, f"train.{name}", "above 0")
        require(0 <= self.lr_warmup < 1, "train.lr_warmup", "in [0, 1)")
        require(not (self.lora_rank and self.deepspeed), "train.lora_rank", "0 with train.deepspeed")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server as the model (evaluation/scorers/endpoint.py), for `evaluate.mode: endpoint`."""

    url: str = "http://localhost:8000/v1"
    """Base address; `/chat/completions` is added."""
    model: str = ""
    """Name of the model, as the server knows it."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; unset for a server that takes none."""
    num_frames: int = 16
    """Frames of a clip that are sent as images, spread evenly over those the question may show."""
    max_pixels: int = 230_400
    """Larger frames are made smaller."""
    jpeg_quality: int = 90
    max_tokens: int = 256
    """Longest answer."""
    timeout: float = 120.0
    """Seconds for one request."""
    retries: int = 4
    """Further attempts where the server is busy, broken or out of reach, each after a longer pause."""
    pause: float = 1.0
    """Seconds before the first further attempt; doubled each time."""
    concurrency: int = 4
    """Requests under way at once."""

    def __post_init__(self) -> None:
        require(self.url.startswith(("http://", "https://")), "evaluate.endpoint.url", "an http or https address")
        for name in ("num_frames", "max_tokens", "concurrency"):
            require(getattr(self, name) >= 1, f"evaluate.endpoint.{name}", "at least 1")
        require(self.max_pixels >= 28 * 28, "evaluate.endpoint.max_pixels", "at least 784 (28 x 28)")
        require(1 <= self.jpeg_quality <= 100, "evaluate.endpoint.jpeg_quality", "between 1 and 100")
        require(self.timeout > 0, "evaluate.endpoint.timeout", "above 0")
        for name in ("retries", "pause"):
            require(getattr(self, name) >= 0, f"evaluate.endpoint.{name}", "at least 0")


@dataclass(frozen=True)
class Evaluate:
    """Scoring on the benchmark (evaluation/)."""

    mode: Literal["likelihood", "generate", "endpoint"] = "likelihood"
    """`likelihood`: log-probability of each option's letter; `generate`: the text that the model writes, greedily;
    `endpoint`: the text that the model of `evaluate.endpoint` writes."""
    parser: Literal["lenient", "strict"] = "lenient"
    """How a letter is read from a text (evaluation/answer_parsing.py)."""
    max_new_tokens: int = 16
    """Longest text of mode `generate`."""
    batch_size: int = 16
    """Questions in one forward pass; changes the time and the memory, not the answers."""
    shared_prefix: bool = False
    """Mode `likelihood`: encode a video once for the questions about it that are in one batch
    (model/shared_prefix.py). Changes the time, not the answers; it pays where videos are long."""
    controls: tuple[
        Literal[
            "blind",
            "black_video",
            "first_frame",
            "zeroed_geometry",
            "shuffled_geometry",
            "reversed_time",
            "mirrored",
            "no_question",
        ],
        ...,
    ] = ("blind", "shuffled_geometry")
    """Runs of the same questions with something taken away or turned round (evaluation/controls.py)."""
    rotations: bool = False
    """Ask every question again with its options rotated, for the accuracy under every rotation: four times the
    work."""
    cache: bool = True
    """Keep every prediction in data/predictions/cache.sqlite, by model, prompt, clip and control: a killed run goes
    on, and what was answered is not asked again."""
    bootstrap: int = 2000
    """Resamples over source videos behind each 95 % interval."""
    seed: int = 1
    """Seeds the resamples and which clip lends its geometry."""
    endpoint: Endpoint = field(default_factory=Endpoint)

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens"):
            require(getattr(self, name) >= 1, f"evaluate.{name}", "at least 1")
        require(len(set(self.controls)) == len(self.controls), "evaluate.controls", "a list without repeats")
        require(self.bootstrap >= 100, "evaluate.bootstrap", "at least 100")
        require(self.seed >= 0, "evaluate.seed", "at least 0")
        require(
            self.mode != "endpoint" or bool(self.endpoint.model), "evaluate.endpoint.model", "a name for mode endpoint"
        )


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    simulate: Simulate = field(default_factory=Simulate)
    clips: Clips = field(default_factory=Clips)
    curation: Curation = field(default_factory=Curation)
    cues: Cues = field(default_factory=Cues)
    qa: QA = field(default_factory=QA)
    split: Split = field(default_factory=Split)
    gsm: GSM = field(default_factory=GSM)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {},
    # arXiv 2512.20557, section 5.1, and the training script of github.com/Tiamat-Tech/DSR_Suite; a step is 32 questions
    # on one GPU.
    "qwen2.5-vl-7b": {
        "gsm": {"fusion": "gsm", "num_tokens": 32, "encoders": ["pi3"]},
        "model": {"backbone": "models/weights/Qwen2.5-VL-7B-Instruct", "max_pixels": 230400},
        "train": {
            "steps": 0,
            "epochs": 1.0,
            "text_steps": 0,
            "geometry_steps": 0,
            "option_loss": 0.0,
            "state_loss": 0.0,
            "batch_size": 4,
            "accumulation": 8,
            "shared_prefix": True,
            "learning_rate": 2e-7,
            "gsm_learning_rate": 1e-6,
            "lr_warmup": 0.03,
            "weight_decay": 0.01,
            "bf16": True,
            "gradient_checkpointing": True,
            "cache_gib": 16.0,
        },
        "evaluate": {"shared_prefix": True},
    },
}
"""Values of each model.preset for keys that params.yaml leaves out."""


def load(path: Path) -> Params:
    """Read params.yaml; a missing key takes the value of `model.preset`, or its default.

    Raises:
        StageError: an unknown key, a value of the wrong type or out of range, each named; no such file.
    """
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise StageError(f"{path} does not exist: run from the project folder, or name it with --root") from None
    except yaml.YAMLError as error:
        raise StageError(f"{path} is not YAML: {error}") from None
    try:
        return typing.cast(Params, _build(Params, _with_preset(tree), ""))
    except ValueError as error:
        raise StageError(f"{path}: {error}") from None


def require(condition: bool, key: str, expected: str) -> None:
    if not condition:
        raise ValueError(f"{key} must be {expected}")


def _with_preset(tree: Any) -> Any:
    """params.yaml's tree with its preset's values where it has none; what is malformed is left for `_build` to name."""
    model = tree.get("model") if isinstance(tree, dict) else None
    preset = PRESETS.get(str(model.get("preset"))) if isinstance(model, dict) else None
    if not preset:
        return tree
    own = {name: tree.get(name) or {} for name in preset}
    return tree | {name: preset[name] | section for name, section in own.items() if isinstance(section, dict)}


def _build(kind: Any, value: Any, key: str) -> Any:
    """Turn a YAML value into `kind`, a dataclass, tuple, literal or plain type, or say what is wrong with `key`."""
    if dataclasses.is_dataclass(kind):
        require(isinstance(value, dict), key or "the top level", f"a mapping, not {value!r}")
        hints = typing.get_type_hints(kind)
        for name in value:
            if name not in hints:
                near = difflib.get_close_matches(str(name), hints, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(hints)}"
                raise ValueError(f"unknown key {_join(key, name)!r}{hint}")
        made = {name: _build(hints[name], item, _join(key, name)) for name, item in value.items()}
        return typing.cast(Any, kind)(**made)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, key)
    if origin is Literal:
        require(value in arguments, key, f"one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(items)
        require(len(items) == len(arguments), key, f"a list of {len(arguments)} values, not {value!r}")
        return tuple(_build(a, item, key) for a, item in zip(arguments, items, strict=True))
    if origin is dict:
        require(isinstance(value, dict), key, f"a mapping, not {value!r}")
        return {name: _build(arguments[1], item, _join(key, name)) for name, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int in Python, but `num_clips: true` is a mistake.
    matches = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    require(matches, key, f"of type {kind.__name__}, not {value!r}")
    return value


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
