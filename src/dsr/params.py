"""params.yaml as frozen dataclasses: every key is known, typed and in range, and an error names the key.

One dataclass a section; the docstring under a key is its meaning in docs/parameters.md and in editors. The defaults
are the values of params.yaml, the default run. A stage receives the sections that it uses; dvc.yaml lists the same
keys, so that a change recomputes what depends on it and nothing else.
"""

import difflib
import json
import re
import reprlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from dsr.console import StageError, warn

CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
MAX_DEPTH = 16
"""Levels of a parameter file; the parameters have four."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOr0 = Annotated[int, Field(ge=0, le=1_000_000)]
AtLeast0 = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Frames = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, le=600)]
Width = Annotated[int, Field(ge=64, le=8192, multiple_of=2)]
Bodies = Annotated[int, Field(ge=2, le=100)]
Cells = Annotated[int, Field(ge=4, le=1024)]
Pixels = Annotated[int, Field(ge=28 * 28, le=2**26)]
PromptName = Literal["", "dsr", "published", "vlmevalkit"]


def require(condition: bool, key: str, expected: str) -> None:
    if not condition:
        raise ValueError(f"{key} must be {expected}")


@dataclass(frozen=True, config=CONFIG)
class Simulate:
    """Rendered clips of a physics world with exact truth (simulator/)."""

    num_clips: Count = 414
    """Clips to make; ids are sim_000000, sim_000001, …"""
    seed: Seed = 1
    """Seed of the worlds. Clip i depends on (seed, i) alone, so more clips leave the first ones as they are."""
    duration: tuple[Seconds, Seconds] = (4.0, 8.0)
    """Shortest and longest clip in seconds; each clip draws its own."""
    fps: Annotated[int, Field(ge=1, le=240)] = 8
    """Frames a second."""
    size: tuple[Width, Width] = (224, 168)
    """Width and height in pixels; both even (H.264)."""
    bodies: tuple[Bodies, Bodies] = (3, 6)
    """Fewest and most bodies in a world."""
    rendered: CountOr0 = 64
    """Clips with a video, the first ones. The others are truth files alone (trajectories, boxes, visibility), thousands
    in seconds; a model is shown black frames for them."""

    def __post_init__(self) -> None:
        require(self.duration[0] <= self.duration[1], "duration", "[shortest, longest]")
        require(self.bodies[0] <= self.bodies[1], "bodies", "[fewest, most]")


@dataclass(frozen=True, config=CONFIG)
class Koala:
    """Clips of Koala-36M, for `clips.source: koala` (clips/koala.py)."""

    csv: Annotated[str, Field(min_length=1)] = "data/raw/koala/Koala_36M_*.csv"
    """The CSV files as published, a pattern from the project folder on. What lies outside data/raw/koala is not
    watched by DVC."""
    videos: Annotated[str, Field(min_length=1)] = "data/raw/koala"
    """Folder of the videos, from the project folder on: clips named by videoID, or full videos named by YouTube id, at
    any depth."""
    ids: str = ""
    """Table with a column videoID (or video, with files' names), or text with one a line: no other clips are used. The
    published benchmark's, say."""
    duration: tuple[AtLeast0, AtLeast0] = (20.0, 120.0)
    """Shortest and longest clip in seconds."""
    min_clarity: float | None = None
    """Least clarity_score (0 to 1). null here and below: no limit."""
    min_aesthetic: float | None = None
    """Least aesthetic_score (seen: 2.3 to 6.6)."""
    min_motion: float | None = None
    """Least motion_score (seen: 0.01 to 267)."""
    max_motion: float | None = None
    """Largest motion_score."""
    min_suitability: float | None = None
    """Least video_training_suitability_score (seen: 2.5 to 5)."""
    words: tuple[str, ...] = ()
    """Words or phrases, of which the caption must have one, as a whole word in upper or lower case."""
    without_words: tuple[str, ...] = ()
    """Words or phrases, of which it must have none."""
    only_with_file: bool = False
    """true: draw from the clips that there is a video of; false: from all, and say of which there is none."""
    max_clips: Count = 10_000
    """Most clips, drawn from those that pass. More clips leave the first ones as they are."""
    seed: Seed = 1
    """Seed of the draw."""

    def __post_init__(self) -> None:
        require(self.duration[0] <= self.duration[1], "duration", "[shortest, longest]")
        for name in ("words", "without_words"):
            require(all(word.strip() for word in getattr(self, name)), name, "a list without empty words")


@dataclass(frozen=True, config=CONFIG)
class Clips:
    """The clips, and how their table is read (clips/)."""

    source: str = "simulated"
    """Folder under data/raw/ that holds the videos and their clips.csv; `koala`: Koala-36M's own files."""
    source_video_pattern: str = ""
    """Regular expression whose first group is a clip id's source video. Without it a clips.csv column `source_video` is
    used, and without that each clip is its own source video. Koala-36M needs none."""
    koala: Koala = Koala()

    def __post_init__(self) -> None:
        named = bool(self.source) and not set(self.source) & set("/\\") and not self.source.startswith(".")
        require(named, "source", "the name of a folder under data/raw/")
        try:
            groups = re.compile(self.source_video_pattern).groups
        except re.error as error:
            raise ValueError(f"source_video_pattern is no regular expression: {error}") from None
        require(groups >= 1 or not self.source_video_pattern, "source_video_pattern", "a pattern with a group")


@dataclass(frozen=True, config=CONFIG)
class ChatServer:
    """An OpenAI-compatible server (language_models/server.py).

    Descriptions are part of the types, as pydantic hands down no docstrings of fields.
    """

    url: Annotated[str, Field(description="Base address; `/chat/completions` is added.")] = "http://localhost:8000/v1"
    model: Annotated[str, Field(description="Name of the model, as the server knows it.")] = ""
    api_key_env: Annotated[
        str, Field(description="Environment variable that holds the key; unset for a server that takes none.")
    ] = "OPENAI_API_KEY"
    max_tokens: Annotated[Count, Field(description="Longest answer.")] = 256
    timeout: Annotated[
        Above0, Field(description="Seconds for one request, from its first byte to the last of the answer.")
    ] = 120.0
    retries: Annotated[
        CountOr0,
        Field(
            description="Further attempts where the server is busy, broken or out of reach, each after a longer pause."
        ),
    ] = 4
    pause: Annotated[
        AtLeast0,
        Field(
            description="Seconds before the first further attempt; doubled each time, longer where the server says so."
        ),
    ] = 1.0
    concurrency: Annotated[Annotated[int, Field(ge=1, le=1024)], Field(description="Requests under way at once.")] = 4

    def __post_init__(self) -> None:
        require(self.url.startswith(("http://", "https://")), "url", "an http or https address")
        # A key in an address would stand in files and errors; what follows "?" would be cut in two.
        require(not set(self.url) & set("@?#"), "url", "an address without a name, a password or a query")


@dataclass(frozen=True, config=CONFIG)
class LanguageModel(ChatServer):
    """The language model of `curation.backend: llm` (curation/language_model.py)."""

    max_tokens: Count = 4096
    """Longest answer, with the reasoning before it; more for models that reason at length."""
    timeout: Above0 = 300.0
    """Seconds for one request, from its first byte to the last of the answer; more for models that reason at length."""
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name under which the server takes it."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """Temperature of the answers; null for a model that takes none."""
    json_schema: bool = True
    """Send the answer's JSON schema as `response_format`; one more request without it, where the server refuses that.
    The answer is checked either way."""
    re_asks: Annotated[int, Field(ge=0, le=10)] = 2
    """Further questions about an answer that cannot be used; each quotes what is wrong with it."""
    num_frames: Annotated[int, Field(ge=0, le=64)] = 0
    """Frames of a clip that are sent as images, spread evenly over it; 0 for a model that takes none."""
    max_pixels: Pixels = 230_400
    """Most pixels of a frame; larger ones are made smaller."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of the images."""
    min_moving: CountOr0 = 1
    """Fewest things that change their place, for a clip to be kept (published: 3)."""
    keep_from_vehicle: bool = False
    """Keep clips that are filmed from inside a vehicle."""
    visible_share: tuple[Share, Share] = (0.01, 0.5)
    """Least and largest share of the picture that agents and objects take, for a clip to be kept; known only where
    frames are sent."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Most requests of one run of the stage, failed ones included. null: no limit."""
    max_total_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of one run, of questions and answers together; what is under way when they are used up is still
    paid for. null: no limit."""
    max_cost: Above0 | None = None
    """Most money of one run, in the currency of the prices, likewise. null: no limit."""
    price_in: AtLeast0 = 0.0
    """Price of a million tokens of questions."""
    price_out: AtLeast0 = 0.0
    """Price of a million tokens of answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.visible_share[0] <= self.visible_share[1], "visible_share", "[least, largest]")
        require(
            self.max_cost is None or self.price_in + self.price_out > 0,
            "max_cost",
            "null without price_in or price_out",
        )


@dataclass(frozen=True, config=CONFIG)
class Curation:
    """Agents, objects, dynamic or static, category (curation/)."""

    backend: Literal["rules", "llm"] = "rules"
    """`rules` reads the caption with a WordNet lexicon, offline; `llm` asks the language model of `curation.llm`."""
    max_nouns: Count = 12
    """Most agents and objects kept for a clip, in the order in which the caption names them."""
    min_motion: AtLeast0 = 0.0
    """Least way of what moves most in a clip, as its cues measure it, in median depths (questions/motion.py); no
    questions are asked about a clip with less. 0: no limit."""
    llm: LanguageModel = LanguageModel()

    def __post_init__(self) -> None:
        require(self.backend != "llm" or bool(self.llm.model), "llm.model", "a name for backend llm")


@dataclass(frozen=True, config=CONFIG)
class CueNoise:
    """Noise of the `simulated` backend, seeded by clip; every value 0 gives the exact truth."""

    depth: AtLeast0 = 0.02
    """Relative standard deviation of a fully seen body's depth: a part that the clip shares, one that drifts from
    frame to frame, and the body's own. Box edges jitter by the same share of the box."""
    pose: AtLeast0 = 0.002
    """Standard deviation of the camera's position on each axis, relative to the scene's median depth, and of its
    rotation about each axis in radians; half drift, half jitter."""
    angle: AtLeast0 = 4.0
    """Standard deviation of an agent's orientation about each of its axes, in degrees; half bias, half jitter."""
    missed: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of visible (track, frame) pairs that the detector misses, in runs of about two frames."""


@dataclass(frozen=True, config=CONFIG)
class SimulatedCues:
    """The `simulated` backend (cues/backends/simulated.py)."""

    seed: Seed = 1
    """Seed of the noise; a clip's own depends on (seed, clip_id) alone."""
    noise: CueNoise = CueNoise()


@dataclass(frozen=True, config=CONFIG)
class FoundationCues:
    """The `foundation` backend (cues/backends/foundation.py)."""

    preset: Literal["published", "tiny"] = "published"
    """`tiny`: small models with random weights, which see nothing; the same code without weights, for trying it out."""
    weights: Annotated[str, Field(min_length=1)] = "models/weights"
    """Folder of the published checkpoints, from the project folder on; `dsr weights` lists them."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto`: every GPU that there is, one process each, else the CPU."""
    reconstruction: Literal["pi3"] = "pi3"
    """Model of points and camera poses (perception/reconstruction.py)."""
    key_frames: Annotated[int, Field(ge=1, le=4)] = 4
    """Frames that the detector sees, spread over the clip."""
    box_threshold: Share = 0.35
    """Least probability of a detection's best token."""
    text_threshold: Share = 0.25
    """Least probability of a token of the word that a detection is called by."""
    nms_iou: Share = 0.7
    """Detections in a frame whose boxes overlap more (intersection over union) are one."""
    match_iou: Share = 0.5
    """Masks in a frame that overlap at least this much are one thing."""
    max_tracks: Count = 16
    """Most things followed in a clip, the first found first."""
    min_orientation_box: Share = 0.02
    """Smallest side of an agent's box, as a share of the image's, for which its orientation is estimated; no question
    mentions a smaller one (`qa.min_box`)."""
    batch_size: Count = 32
    """Pictures at a time; halved where they do not fit into memory."""
    decoders: Annotated[int, Field(ge=1, le=1024)] = 2
    """Processes that decode clips ahead, for each that runs models."""
    timeout: Above0 = 1800.0
    """Seconds after which a clip that is not finished counts as failed."""
    seed: Seed = 1
    """Seed of the weights of the preset `tiny`."""


@dataclass(frozen=True, config=CONFIG)
class Cues:
    """3D cues (cues/)."""

    backend: Literal["simulated", "annotated", "foundation"] = "simulated"
    """`simulated` reads the simulator's truth; `annotated` reads camera poses and tracks from files; `foundation` sees
    them in the video with published models."""
    num_frames: Annotated[int, Field(ge=8, le=1024)] = 32
    """Uniformly spaced frames a clip; a clip with fewer is refused by the catalogue."""
    point_map_size: tuple[Cells, Cells] = (24, 32)
    """Height and width of the reduced point map."""
    max_clips_failed: CountOr0 = 1000
    """The stage stops with the reasons once more clips than this have failed."""
    simulated: SimulatedCues = SimulatedCues()
    foundation: FoundationCues = FoundationCues()


@dataclass(frozen=True, config=CONFIG)
class Steps:
    """Frames between two key moments, the choices for each signal (for 32 frames)."""

    dis: Frames = (2, 3, 4, 5, 6)
    """For distances."""
    dir: Frames = (1, 2, 3, 4, 6)
    """For directions."""
    ori: Frames = (1, 2, 3, 4)
    """For orientations."""
    spd: Frames = (3, 4, 5, 6)
    """For speeds."""
    spd_comp: Frames = (3, 4, 5, 6)
    """For comparisons of two speeds."""
    dir_pred: Frames = (3, 4, 5, 6)
    """For predicted directions."""
    non_temp: Frames = (2, 3)
    """For free-form questions."""


@dataclass(frozen=True, config=CONFIG)
class Ensemble:
    """Perturbed copies of the cues on which an answer must hold (questions/engine/scene.py)."""

    members: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Copies."""
    margin: AtLeast0 = 1.15
    """Factor on every uncertainty."""
    max_jitter: AtLeast0 = 0.1
    """Cap on the relative depth jitter that is read off a track's own frame-to-frame noise."""
    across: AtLeast0 = 0.25
    """Noise across the viewing ray, as a share of that along it."""
    angle: AtLeast0 = 4.0
    """Standard deviation of an agent's axes in degrees, at least; more where a track's axes jitter more."""
    max_angle: AtLeast0 = 20.0
    """Cap on what is read off that jitter, in degrees."""
    camera: AtLeast0 = 0.002
    """Standard deviation of the camera's position (in median depths) and rotation (radians)."""


@dataclass(frozen=True, config=CONFIG)
class Audit:
    """Shortcuts, balance and label stability of the question pool (audit/audit.py)."""

    seed: Seed = 1
    """Seed of samples, attackers, resamples and fresh noise."""
    max_blind_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.285
    """The stage fails where the strongest attacker's accuracy, without the video, is above this for sure: the
    lower end of its 95 % interval is. A small pool is thus not failed for its sampling noise (600 questions: 3.5
    points), while a large one must be as good as it says."""
    max_type_blind_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.32
    """The same for every type, at a level that holds for all types together."""
    max_questions: Count = 20_000
    """Questions that the attackers train and are tested on; more are sampled by whole quartets."""
    max_clips: Count = 500
    """Clips whose labels are checked; more are sampled."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Versions of a clip's cues for each shape of noise that labels are checked with."""
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 1000
    """Resamples over source videos behind each 95 % interval."""


@dataclass(frozen=True, config=CONFIG)
class QA:
    """Questions with derived answers (questions/)."""

    seed: Seed = 2
    """Seed of noise, candidates and matching."""
    candidates: Count = 4_096
    """About how many candidate questions of each clip and type are looked at, at most, spread over its forms: all
    intervals of as many viewers and targets as that allows. A free-form family draws a quarter of its part. One of the
    same viewer, targets and answer is then tried on the whole ensemble; several, where a clip has few, or many are
    looked at. About 3,000 do with a thousand clips."""
    keep_per_clip_type: Count = 80
    """Candidates of a clip and type that enter the matching, the rarer answers first. 80 do with a thousand clips."""
    max_per_clip: Count = 30
    """Most questions of a clip."""
    max_per_clip_type: Count = 6
    """Most questions of a clip and type."""
    max_questions: Count | None = None
    """Most questions in all; whole quartets, spread over the types. null: no limit."""
    num_blocks: Count | None = 8
    """Blocks of source videos; quartets stay inside one. null: by the number of source videos."""
    steps: Steps = Steps()
    ratio_tolerance: Above0 = 0.2
    """A distance within this ratio is about the same."""
    speed_tolerance: Above0 = 0.5
    """A speed within this ratio is about the same."""
    dead_zone: Annotated[float, Field(gt=0, lt=0.57)] = 0.3
    """A direction's component below this is neither side; from 0.57 on a direction may have none."""
    min_distance: Above0 = 0.08
    """Shortest distance with a state, in median depths; below it the question is not asked."""
    min_displacement: Above0 = 0.15
    """The same for the way of a speed."""
    min_direction: Above0 = 0.15
    """The same for the vector of a direction."""
    max_box_overlap: Share = 0.5
    """Two tracks whose boxes overlap more (intersection over union) are not asked about together."""
    min_box: Share = 0.02
    """Smallest side of a mentioned box, as a share of the image's."""
    answer_margin: Annotated[float, Field(gt=0, le=2)] = 0.4
    """Smallest distance between two options of a quartet, a moment (questions/engine/answers.py)."""
    prediction_margin: Annotated[float, Field(gt=0, le=6)] = 2.0
    """The same for predictions."""
    max_advantage: Above0 = 4.0
    """Most nats by which the texts of a form's questions may speak for their right options, a block's questions
    together (questions/quartets/text_balance.py). 2 with a thousand clips."""
    balance_clips: Count = 512
    """Clips on which it is learned what texts tell of answers."""
    ensemble: Ensemble = Ensemble()
    audit: Audit = Audit()


@dataclass(frozen=True, config=CONFIG)
class Split:
    """Training set and benchmark (questions/split.py)."""

    seed: Seed = 1
    """Decides between sets of blocks that are equally near to what is asked for."""
    bench_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.125
    """Share of the questions that goes to the benchmark, as near as whole blocks allow."""


@dataclass(frozen=True, config=CONFIG)
class GSM:
    """Geometry Selection Module (model/gsm.py)."""

    fusion: Literal["none", "add", "gsm"] = "gsm"
    """`none`: video alone; `add`: geometry added to the vision tokens; `gsm`: selected geometry tokens."""
    num_tokens: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Geometry tokens N that follow the vision tokens (the published model: 32)."""
    encoders: Annotated[tuple[Literal["point_map", "tracks", "pairs", "pi3"], ...], Field(min_length=1)] = (
        "tracks",
        "pairs",
    )
    """Sources of the 3D tokens: the cells of the point map, the tracked things and the camera, each of these as an
    agent or the camera sees it, pi3's picture encoder on the frames (the published model), or several of these."""
    question: Literal["embeddings", "states", "reader"] = "reader"
    """Input of the GSM's condenser: `embeddings` of all text (the published model); `states` of the question's line in
    the language model; `reader`: the things, times and form that a question reader finds in that line, addressed as
    `tracks` and `pairs` are (model/reader.py)."""

    def __post_init__(self) -> None:
        require(len(set(self.encoders)) == len(self.encoders), "encoders", "a list without repeats")


@dataclass(frozen=True, config=CONFIG)
class Model:
    """The vision-language model that training starts from (model/presets.py)."""

    backbone: str = "models/tiny"
    """Folder with a published Qwen2.5-VL, such as models/weights/Qwen2.5-VL-7B-Instruct, or a model of this project; ''
    makes a small one of the same architecture, randomly initialised. configs/ has the recipe of a published one."""
    pi3: str = "models/weights/pi3/model.safetensors"
    """pi3's checkpoint, for the encoder `pi3` on a published backbone."""
    max_pixels: Pixels = 784
    """Most pixels of a frame (the published recipe: 230400); a vision token sees 28 x 28 of them in two frames."""
    prompt: PromptName = ""
    """Text around a question in training, kept with the model: `dsr`; `published`, as in the released model's training
    data; `vlmevalkit`, as in its evaluation (mcq.py). '': as the backbone was trained, `dsr` for a Qwen2.5-VL."""
    seed: Seed = 1
    """Seed of the weights that are drawn at random."""


@dataclass(frozen=True, config=CONFIG)
class Train:
    """Fine-tuning (training/)."""

    steps: Annotated[int, Field(ge=0)] = 100
    """Optimizer steps on questions with video and geometry; 0 trains for `epochs`."""
    epochs: Above0 = 1.0
    """Passes over the questions, where `steps` is 0."""
    geometry_steps: Annotated[int, Field(ge=0)] = 700
    """Steps before these on geometry alone: the GSM learns to look at what a question asks for and to tell its states,
    without the language model. For fusion `gsm` and questions of `qa`; 0 for a published backbone."""
    option_loss: AtLeast0 = 1.0
    """Weight of a loss that has the model choose among the four options, after the prompt and at the end of each
    (training/losses.py); 0 for a published backbone."""
    state_loss: AtLeast0 = 1.0
    """Weight of a loss that has geometry token i tell the state at key moment i in the words of an answer
    (training/losses.py), with word embeddings that stay as they are; 0 for a published backbone."""
    attention_loss: AtLeast0 = 1.0
    """Weight of a loss that has the GSM look at whom and when a question is about (training/losses.py), in
    `geometry_steps`."""
    augment: AtLeast0 = 0.1
    """Above 0, names of things are exchanged in a clip and its questions alike, clocks are put forward alike, and the
    values of 3D tokens get noise of this deviation (training/guidance.py); 0 for a published backbone."""
    max_questions: Annotated[int, Field(ge=0)] = 0
    """Train on so many of the questions, drawn at random; a smaller set is part of a larger one. 0: all."""
    shuffle_options: bool = True
    """Give a question's options in a new order each time it is used."""
    batch_size: Count = 32
    """Questions in one forward and backward pass."""
    accumulation: Count = 1
    """Passes summed up before a step; batch_size x accumulation x GPUs is the effective batch (published: 32)."""
    learning_rate: Above0 = 0.001
    """Learning rate of the language model (published: 2e-7)."""
    gsm_learning_rate: Above0 = 0.003
    """Learning rate of the vision tower's merger, the geometry encoders and the GSM (published: 1e-6)."""
    train_vision_tower: bool = False
    """Train the vision tower too, with `learning_rate`; the published recipe keeps it as it is."""
    lr_warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps of the GSM alone, and of those of whole questions, over which the learning rates rise; a
    cosine takes them down after that."""
    weight_decay: AtLeast0 = 0.01
    """AdamW's, on matrices alone."""
    max_grad_norm: Above0 = 1.0
    """Gradients are scaled down to this norm."""
    bf16: bool = False
    """Compute in bfloat16 (GPUs). Trained parameters stay in float32, or have a copy in it (DeepSpeed): a step of 2e-7
    is lost in bfloat16."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    shared_prefix: bool = True
    """Encode a video once for the questions about it that are in one batch (model/shared_prefix.py). The same loss and
    gradients for less time."""
    questions_per_clip: Count = 4
    """With `shared_prefix`, most questions about the same frames of a clip that follow one another."""
    deepspeed: Literal["", "zero2", "zero3", "zero3_offload"] = ""
    """Share optimizer state (zero2), parameters too (zero3), and keep both in the host's memory (zero3_offload):
    configs/deepspeed/."""
    lora_rank: CountOr0 = 0
    """Above 0, train low-rank adapters (peft) of the language model in the place of all of it; they are merged into
    the model that is saved. With a learning rate of about 1e-4, and without `deepspeed`."""
    tensorboard: bool = False
    """Write TensorBoard's files too, to models/checkpoints/tensorboard/."""
    save_steps: Count = 200
    """Steps between two checkpoints, from which a killed run goes on."""
    cache_gib: AtLeast0 = 2.0
    """Memory for decoded frames and cues in GiB; clips beyond it are read again when their turn comes."""
    seed: Seed = 1
    """Seed of the order of the questions, of their options, and of `augment`."""

    def __post_init__(self) -> None:
        require(not (self.lora_rank and self.deepspeed), "lora_rank", "0 with train.deepspeed")


@dataclass(frozen=True, config=CONFIG)
class Endpoint(ChatServer):
    """An OpenAI-compatible server as the model (evaluation/scorers/endpoint.py), for `evaluate.mode: endpoint`."""

    num_frames: Annotated[int, Field(ge=1, le=1024)] = 16
    """Frames of a clip that are sent as images, spread evenly over those the question may show."""
    max_pixels: Pixels = 230_400
    """Most pixels of a frame; larger ones are made smaller."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of the images."""


@dataclass(frozen=True, config=CONFIG)
class Evaluate:
    """Scoring on the benchmark (evaluation/)."""

    mode: Literal["likelihood", "generate", "endpoint"] = "likelihood"
    """`likelihood`: log-probability of each option's letter; `generate`: the text that the model writes, greedily;
    `endpoint`: the text that the model of `evaluate.endpoint` writes."""
    parser: Literal["lenient", "strict"] = "lenient"
    """Rule by which a letter is read from a text (evaluation/answer_parsing.py)."""
    prompt: PromptName = ""
    """Text around a question, as in `model.prompt`; '': as the model was trained, `dsr` for an endpoint."""
    max_new_tokens: Count = 16
    """Longest text of mode `generate`."""
    batch_size: Count = 64
    """Questions in one forward pass; changes the time and the memory, not the answers."""
    shared_prefix: bool = True
    """Mode `likelihood`: encode a video once for the questions about it that are in one batch
    (model/shared_prefix.py). Changes the time, not the answers."""
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
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    """Resamples over source videos behind each 95 % interval."""
    seed: Seed = 1
    """Seed of the resamples, and of which clip lends its geometry."""
    endpoint: Endpoint = Endpoint()

    def __post_init__(self) -> None:
        require(len(set(self.controls)) == len(self.controls), "controls", "a list without repeats")
        require(self.mode != "endpoint" or bool(self.endpoint.model), "endpoint.model", "a name for mode endpoint")


@dataclass(frozen=True, config=CONFIG)
class Params:
    """All of params.yaml."""

    simulate: Simulate = Simulate()
    clips: Clips = Clips()
    curation: Curation = Curation()
    cues: Cues = Cues()
    qa: QA = QA()
    split: Split = Split()
    gsm: GSM = GSM()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()


ADAPTER = TypeAdapter(Params)
ABSENT = object()
"""Value of a key that a file has not."""


@cache
def json_schema() -> dict[str, Any]:
    """JSON schema of params.yaml, with which editors complete and check it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ADAPTER.json_schema()}


@cache
def keys() -> dict[str, dict[str, Any]]:
    """Every section and parameter by its dotted key, in the order of params.yaml, with its JSON schema."""
    schema = json_schema()

    def below(section: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, child in section["properties"].items():
            child = schema["$defs"][child["$ref"].rpartition("/")[2]] if "$ref" in child else child
            yield f"{key}{name}", child
            if "properties" in child:
                yield from below(child, f"{key}{name}.")

    return dict(below(schema, ""))


@cache
def parameters() -> dict[str, dict[str, Any]]:
    """Every parameter by its dotted key with its JSON schema."""
    return {key: schema for key, schema in keys().items() if "properties" not in schema}


def type_and_range(schema: dict[str, Any]) -> tuple[str, str]:
    """Type of a parameter and the values that it may have, in words; no range where any will do.

    >>> type_and_range({"type": "array", "items": {"type": "integer", "minimum": 1}})
    ('list of whole numbers', 'at least 1')
    """
    if "anyOf" in schema:
        kind, limits = type_and_range(schema["anyOf"][0])
        return kind, f"{limits}, or null" if limits else "or null"
    if "enum" in schema or "const" in schema:
        names = schema.get("enum") or [schema["const"]]
        return "name", f"{'one of ' * (len(names) > 1)}{', '.join(name or repr(name) for name in names)}"
    if schema["type"] == "array":
        kind, limits = type_and_range(schema["items"] if "items" in schema else schema["prefixItems"][0])
        count = f"{len(schema['prefixItems'])} " if "prefixItems" in schema else ""
        return f"{'non-empty ' * ('minItems' in schema and not count)}list of {count}{kind}s", limits
    kinds = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    ends = [f"{word} {schema[name]:,}" for name, word in words.items() if name in schema]
    if "minimum" in schema and "maximum" in schema:
        ends = [f"from {schema['minimum']:,} to {schema['maximum']:,}"]
    ends += ["even"] * ("multipleOf" in schema) + ["not empty"] * ("minLength" in schema)
    return kinds[schema["type"]], ", ".join(ends)


def expected(schema: dict[str, Any]) -> str:
    """Value of a parameter as an error describes it.

    >>> expected({"type": "integer", "minimum": 1})
    'a whole number, at least 1'
    """
    kind, limits = type_and_range(schema)
    if kind == "name":
        return limits
    article = {"true or false": "", "text": ""}.get(kind, "a ")
    each = "each " if "list" in kind else ""
    return f"{article}{kind}" + (f", {each}{limits}" if limits else " in quotes" * (kind == "text"))


def load(path: Path) -> Params:
    """Read params.yaml. A key that is left out takes its default, and a warning says so.

    Raises:
        StageError: an unknown key, a value of the wrong type or out of range, each named; no such file.
    """
    tree = read_tree(path)
    params = validate(tree, path)
    if missing := [key for key in parameters() if value_at(tree, key) is ABSENT]:
        warn(
            f"{path} lacks {len(missing)} of {len(parameters())} parameters ({', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}): they take their defaults; `dsr params --complete` writes them down"
        )
    return params


def read_tree(path: Path) -> Any:
    """Read a file of parameters as DVC reads it (YAML 1.2, where 2e-07 is a number), without checking its keys.

    Raises:
        StageError: no such file, not UTF-8, not YAML, or with aliases or nesting that make a small file a large one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if isinstance(event, AliasEvent) or depth > MAX_DEPTH:
                what = "an alias" if isinstance(event, AliasEvent) else f"more than {MAX_DEPTH} levels"
                raise StageError(f"{path}, line {event.start_mark.line + 1}: {what}; write the values out")
        tree = YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError:
        raise StageError(f"{path} does not exist: run from the project folder, or name it with --root") from None
    except OSError as error:
        raise StageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = f", line {mark.line + 1}" if mark else ""
        raise StageError(f"{path} is not YAML{line}: {shorten(problem, 200)}") from None
    return {} if tree is None else tree


def validate(tree: Any, path: Path) -> Params:
    """Turn the tree of a file into parameters.

    Raises:
        StageError: what is wrong, by key.
    """
    try:
        # JSON has the types that YAML's values may have: a mapping is a section, a list a tuple, and no other is cast.
        return ADAPTER.validate_json(json.dumps(tree, default=str))
    except TypeError:
        raise StageError(f"{path}: a key is not a word") from None
    except ValidationError as error:
        mistakes = list(dict.fromkeys(_mistake(details, tree) for details in error.errors(include_url=False)))
        raise StageError(f"{path}: {'; '.join(mistakes[:3])}{'; …' if len(mistakes) > 3 else ''}") from None


def value_at(tree: Any, key: str) -> Any:
    """Value of a dotted key, or ABSENT."""
    for name in key.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return ABSENT
        tree = tree[name]
    return tree


def _mistake(details: Any, tree: Any) -> str:
    """Say in a line what is wrong with a key."""
    place = [name for name in details["loc"] if isinstance(name, str)]
    key, section = ".".join(place), "".join(f"{name}." for name in place[:-1])
    if details["type"] == "value_error":
        return ".".join([*place, str(details["ctx"]["error"])])
    if details["type"] == "unexpected_keyword_argument":
        known = [k.removeprefix(section) for k in keys() if k.startswith(section) and "." not in k[len(section) :]]
        near = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        return f"unknown key {_short(key)}{hint}"
    if not key:
        return f"the top level must be a mapping, not {_short(tree)}"
    wanted = expected(parameters()[key]) if key in parameters() else "a mapping"
    return f"{key} must be {wanted}, not {_short(value_at(tree, key))}"


def _short(value: Any) -> str:
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 80
    return shortened.repr(value)
