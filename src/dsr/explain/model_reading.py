"""Reading of a trained model's view on a question (dsr.explain.model_view).

The selector's attention is asked for with a `Look` (dsr.model.gsm). A geometry token tells the state whose sentence its
embedding is nearest to, as its loss in training has it (dsr.training.losses).

Letters: N geometry tokens, k 3D tokens, h heads, d width, M key moments.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsr import project
from dsr.clips.video import VideoError
from dsr.console import StageError
from dsr.cues.schema import ClipCues, CuesError
from dsr.examples.clips import ClipStore
from dsr.examples.collate import Collator
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import example_of
from dsr.explain.derivation import State
from dsr.explain.explanation import Explanation
from dsr.explain.model_view import Glance, ModelView, Seen, Told
from dsr.mcq import read_row
from dsr.model import load_model
from dsr.model.chat import option_log_probs
from dsr.model.geometry_encoders import CAMERA_LABEL, ENCODERS, FRAMES, MERGE, spelled
from dsr.model.gsm import Look
from dsr.model.presets import share_cores
from dsr.questions.language.families import Family
from dsr.questions.language.templates import answer_text
from dsr.training.batches import TrainingCollator
from dsr.training.guidance import STATES, STATES_OF_FORM, GuidedExample, state_sentences
from dsr.training.losses import state_log_probs

_RECORD = "params.json"
"""File of a model's folder with the parameters of its training."""


def read_view(root: Path, found: Explanation, trained_on: bool) -> ModelView:
    """View of a project's model on a question.

    Args:
        trained_on: whether the question is one of those for training.

    Raises:
        StageError: no usable model, or the clip cannot be shown to it.
    """
    folder = root / project.MODEL
    model, processor = load_model(folder)
    share_cores(model, workers=1)
    inputs = ClipInputs(ClipStore.of_project(root), processor)
    return model_view(model, inputs, found, trained_on, tells_states=_tells_states(folder))


@torch.inference_mode()
def model_view(
    model: Any, inputs: ClipInputs, found: Explanation, trained_on: bool = False, tells_states: bool = True
) -> ModelView:
    """View of a model on a question.

    Args:
        model: Qwen2.5-VL with a GSM, in evaluation mode.
        inputs: of the project's clips, with the model's processor.
        tells_states: whether the model's geometry tokens were taught to tell states; without, all of them are looked at
            together.

    Raises:
        StageError: the clip cannot be shown, or the model's output is not finite.
    """
    question = read_row(found.row)
    if reason := inputs.problem(question.clip_id):
        raise StageError(f"its clip cannot be shown: {reason}")
    guided = TrainingCollator(inputs, model.config)
    try:
        example = GuidedExample(**vars(example_of(question, inputs.clips)))
        asked = guided.for_gsm([example]).to(model.device)["asked"]
        batch = Collator(inputs, model.config)([example]).to(model.device)
        letters = option_log_probs(model, batch)[0].softmax(-1)
    except (CuesError, VideoError, ValueError) as error:
        raise StageError(str(error)) from None
    output = model(asked=asked | {"look": Look()})
    shares = output.attention[0].float().exp().mean(0).cpu().numpy()  # [N, k]
    if tells_states:
        # At the state's sentence as the language model's words spell it.
        words = guided.state_words().to(model.device)
        sentences = spelled(words, model.get_input_embeddings())
        possible = torch.zeros(1, len(STATES), dtype=torch.bool, device=model.device)
        possible[0, STATES_OF_FORM[found.form.name]] = True
        states = state_log_probs(output.geometry_tokens, sentences, possible)[0].exp().cpu().numpy()
        glances = _glances(found, shares, states)
    else:
        start, end = float(found.times[0]), float(found.times[-1])
        glances = [Glance(f"all {len(shares)} geometry tokens", start, end, shares.mean(0), None)]
    tokens = seen_tokens(asked, model.config.gsm["encoders"], inputs.clips.cues(question.clip_id))
    return ModelView(str(project.MODEL), trained_on, letters.tolist(), question.answer, tokens, glances)


def seen_tokens(asked: Mapping[str, Any], encoders: Sequence[str], cues: ClipCues) -> list[Seen]:
    """The 3D tokens of the only video of a batch for the GSM, as the model's encoders make them of it."""
    labels = [*cues.labels.tolist(), CAMERA_LABEL]
    names = [
        f"{label} (track {thing})" if labels.count(label) > 1 and thing < cues.num_tracks else label
        for thing, label in enumerate(labels)
    ]
    groups, rows, columns = asked["video_grid_thw"][0].tolist()
    grid = groups, rows // MERGE, columns // MERGE
    seconds = [float(cues.timestamps[FRAMES * group : FRAMES * (group + 1)].mean()) for group in range(groups)]
    tokens = []
    for name in encoders:
        arrays = {part: tensor[0].cpu().numpy() for part, tensor in asked["geometry"].get(name, {}).items()}
        if ENCODERS[name].reads_video:
            arrays = {"cells": np.indices(grid).reshape(3, -1).T}
        for place, (group, row, column) in enumerate(arrays["cells"].tolist()):
            if "things" not in arrays:
                tokens.append(Seen(f"{name} in row {row + 1}, column {column + 1}", seconds[group]))
                continue
            *viewer, thing = arrays["things"][place].tolist()
            seen_by = f" seen by the {names[viewer[0]]}" if viewer else ""
            tokens.append(Seen(f"the {names[thing]}{seen_by}", float(arrays["seconds"][place])))
    return tokens


def _glances(found: Explanation, shares: np.ndarray, states: np.ndarray) -> list[Glance]:
    """A glance a key moment, of attention [N, k] and the states' probabilities [N, S]; more than N have none."""
    glances = []
    for (moment, start, end, derived), own, told in zip(_moments(found), shares, states, strict=False):
        nearest = int(told.argmax())
        glances.append(Glance(moment, start, end, own, Told(STATES[nearest], float(told[nearest]), derived)))
    return glances


def _moments(found: Explanation) -> list[tuple[str, float, float, str]]:
    """Each key moment, or part of a free-form answer, in words, from and to which second it is, and the sentence of the
    state there that follows from the cues."""
    form, states = found.form, found.derivation.states
    if isinstance(form, Family):
        parts = state_sentences(form, found.right)
        derived = state_sentences(form, found.answer) if found.answer in form.answers else ()
        derived = (*derived, *[""] * len(parts))
        name = "part {} of the answer" if len(parts) > 1 else "the answer"
        return [(name.format(i + 1), states[0].start, states[0].end, derived[i]) for i in range(len(parts))]
    if form.signal == "dir_pred":
        states = states[1:]
    return [(_span(state), state.start, state.end, _sentence(form.vocabulary, state)) for state in states]


def _span(state: State) -> str:
    return f"{state.start:.2f} s" if state.start == state.end else f"{state.start:.2f} to {state.end:.2f} s"


def _sentence(vocabulary: str, state: State) -> str:
    """Sentence of a state, "" of one that has no words."""
    try:
        return answer_text(vocabulary, (state.signs,)).removesuffix(".")
    except KeyError:
        return ""


def _tells_states(folder: Path) -> bool:
    """True if a model was trained with a state loss; not where its folder does not say so."""
    try:
        return bool(json.loads((folder / _RECORD).read_text())["train"]["state_loss"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
