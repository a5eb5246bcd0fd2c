"""Pre-training of the language model: options matched to states that stand in the places of geometry tokens.

A sample is a prompt with four options, one of which was drawn as right. Its states are told in the geometry places as a
GSM would tell them: mixtures of the states' words that are unsure, noisy and sometimes wrong, behind vision tokens that
tell nothing. Losses:

- the answer's letter, in the whole vocabulary, and <|im_end|> after it;
- at the end of each option, is this the one (the logit of the option's own letter, compared over the four);
- the same before the last layer, by one probe for all four: what is known only after it, or in another direction for
  each letter, is not found from where the letter is asked for;
- dense, by probes that are thrown away: at each geometry token, in which run of states it stands; at each state of an
  option, is it told at all, and in this place; at each word of a question, in which role it stands.

With the letter's loss alone nothing is learned in thousands of batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr.mcq import LETTERS
from dsr.model.chat import Prompt, build_prompt
from dsr.questions.language.families import FORMS, Family
from experiments.pretrain.embeddings import single_token
from experiments.pretrain.steps import take_step
from experiments.pretrain.texts import (
    NUM_TAGS,
    Choice,
    Names,
    QuestionText,
    Vocabulary,
    draw_choice,
    draw_question,
    names,
    token_tags,
)

NUM_TOKENS = (8, 8, 8, 8, 8, 6, 12, 16, 32)
"""Numbers of geometry tokens to draw from."""
GRIDS = ((16, 2, 2), (16, 2, 3), (8, 2, 2), (4, 3, 4), (16, 1, 1), (1, 1, 1))
"""Vision tokens of a video: groups of frames, rows, columns."""
MAX_RUNS = 6


@dataclass(frozen=True)
class Telling:
    """Certainty and rightness with which states are told; all zero tells them plainly."""

    blur: float = 0.0
    """Deviation of the noise on the evidence for a state, in units of the evidence for one step on an axis."""
    drift: float = 0.0
    """Share of a neighbouring moment's state."""
    noise: float = 0.0
    """Root mean square of noise on a token beside 1 of what it tells."""
    sharpness: float = 8.0

    @classmethod
    def draw(cls, rng: np.random.Generator, hardness: float) -> "Telling":
        """Draw one that is at most so hard, from 0 to 1."""
        if rng.random() < 0.15:
            return cls()
        return cls(
            blur=hardness * rng.uniform(0, 1.1),
            drift=hardness * rng.uniform(0, 0.6),
            noise=hardness * rng.uniform(0, 0.8),
            sharpness=float(np.exp(rng.uniform(np.log(2), np.log(10)))),
        )


@dataclass(frozen=True)
class Sample:
    question: QuestionText
    choice: Choice
    geometry: np.ndarray
    """[N, d] float32."""
    told: np.ndarray
    """[N] place of the state that each geometry token tells in the choice's vocabulary, -1 for none."""


class Teller:
    """Makes geometry tokens that tell states.

    Args:
        codes: [vocabulary, d] word embeddings.
    """

    def __init__(self, tokenizer: Any, codes: Tensor) -> None:
        self._tokenizer, self._codes = tokenizer, codes.numpy()
        self._words: dict[int, np.ndarray] = {}

    def words(self, form: int, vocabulary: Vocabulary) -> np.ndarray:
        """[S, d] embeddings of a form's states."""
        if form not in self._words:
            self._words[form] = self._codes[[single_token(self._tokenizer, w, first=True) for w in vocabulary.words]]
        return self._words[form]

    def tell(
        self, form: int, choice: Choice, count: int, telling: Telling, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Geometry tokens [N, d] and what they tell [N].

        Those after the last key moment repeat its state, or tell nothing: they are a mixture of states at random.
        """
        vocabulary = choice.vocabulary
        words = self.words(form, vocabulary)
        places = [vocabulary.words.index(state) for state in choice.states]
        told = np.array([places[min(k, len(places) - 1)] for k in range(count)])
        evidence = self._evidence(vocabulary, told, telling, rng)
        if rng.random() < 0.5:
            told[len(places) :] = -1
            evidence[len(places) :] = rng.normal(0, rng.uniform(0, 2), (count, len(words)))[len(places) :]
        shares = np.exp(evidence - evidence.max(-1, keepdims=True))
        tokens = (shares / shares.sum(-1, keepdims=True)) @ words
        tokens = _unit(tokens) + telling.noise * rng.normal(size=tokens.shape)
        return _unit(tokens).astype(np.float32), told

    def _evidence(
        self, vocabulary: Vocabulary, told: np.ndarray, telling: Telling, rng: np.random.Generator
    ) -> np.ndarray:
        """[N, S] log-odds of the states: evidence adds up over axes, and errs on each by itself."""
        axes = vocabulary.axes.astype(int) - vocabulary.axes.min()
        values = axes.max() + 1
        sides = np.arange(values)
        known = axes[told]  # [N, A]
        if vocabulary.axes.min() < 0:
            clear = -np.abs(sides - known[..., None]).astype(float)  # [N, A, values]
        else:
            clear = -(sides != known[..., None]).astype(float)
        if telling.drift:
            other = np.roll(clear, rng.choice([-1, 1]), axis=0)
            share = telling.drift * rng.random((len(told), 1, 1))
            clear = (1 - share) * clear + share * other
        common = rng.random() * 0.6
        noise = np.sqrt(1 - common) * rng.normal(size=clear.shape)
        noise += np.sqrt(common) * rng.normal(size=clear.shape[1:])
        clear = clear + telling.blur * noise
        return telling.sharpness * sum(clear[:, axis][:, axes[:, axis]] for axis in range(axes.shape[1]))


def _unit(tokens: np.ndarray) -> np.ndarray:
    return tokens / np.sqrt((tokens**2).mean(-1, keepdims=True) + 1e-9)


def draw_sample(
    teller: Teller, question: QuestionText, hardness: float | Telling, count: int, rng: np.random.Generator
) -> Sample:
    """Options for a question, and geometry tokens that tell one of them."""
    choice = draw_choice(rng, question.form)
    telling = hardness if isinstance(hardness, Telling) else Telling.draw(rng, hardness)
    return Sample(question, choice, *teller.tell(question.form, choice, count, telling, rng))


def draw_questions(known: Names, count: int, rng: np.random.Generator) -> list[QuestionText]:
    """Questions of all forms; free-form ones are one type of thirteen, but half of the forms, and drawn less often."""
    likely = np.array([FREE_FORM if isinstance(form, Family) else 1.0 for form in FORMS])
    forms = rng.choice(len(FORMS), count, p=likely / likely.sum())
    return [draw_question(rng, known, int(form)) for form in forms]


@dataclass
class Batch:
    """Inputs of the language model and what it should know; dense targets by their places (row, token)."""

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    right: Tensor
    answers: Tensor
    ends: Tensor
    run_places: Tensor
    runs: Tensor
    state_places: Tensor
    told: Tensor
    tag_places: Tensor
    tags: Tensor


class Maker:
    """Makes batches of samples."""

    def __init__(self, model: Any, tokenizer: Any, codes: Tensor) -> None:
        self.model, self.tokenizer, self.codes = model, tokenizer, codes
        self.video = tokenizer.convert_tokens_to_ids("<|video_pad|>")

    def batch(
        self, samples: Sequence[Sample], bare: bool, grid: tuple[int, int, int], rng: np.random.Generator
    ) -> Batch:
        """A batch whose videos have one grid; bare: options alone, a random number of positions after the video."""
        vision, count = int(np.prod(grid)), len(samples[0].geometry)
        prompts = [
            build_prompt(
                self.tokenizer,
                "" if bare else sample.question.text,
                sample.choice.options,
                video_tokens=vision + count,
                answer=LETTERS[sample.choice.right],
            )
            for sample in samples
        ]
        length = max(len(prompt.input_ids) for prompt in prompts)
        shifts = [length - len(prompt.input_ids) for prompt in prompts]
        ids = torch.tensor(
            [[self.tokenizer.pad_token_id] * shift + p.input_ids for p, shift in zip(prompts, shifts, strict=True)]
        )
        mask = (torch.arange(length)[None] >= torch.tensor(shifts)[:, None]).long()
        scale = float(np.exp(rng.uniform(np.log(0.3), np.log(2))))
        seen = torch.from_numpy(rng.normal(size=(len(samples), vision, self.codes.shape[1]))).float()
        seen = scale * (seen * rng.uniform(0, 1) + torch.from_numpy(rng.normal(size=seen.shape[2:])).float())
        geometry = torch.from_numpy(np.stack([sample.geometry for sample in samples]))
        embeds = self.codes[ids]
        embeds = embeds.masked_scatter((ids == self.video)[..., None], torch.cat([seen, geometry], 1))
        merge = self.model.config.vision_config.spatial_merge_size
        thw = torch.tensor([[grid[0], merge * grid[1], merge * grid[2]]] * len(samples))
        seconds = [float(rng.uniform(0.2, 0.6))] * len(samples)
        positions, _ = self.model.model.get_rope_index(ids, None, thw, seconds, mask)
        starts = [prompt.input_ids.index(self.video) + shift for prompt, shift in zip(prompts, shifts, strict=True)]
        if bare:
            after = torch.arange(length)[None] >= torch.tensor(starts)[:, None] + vision + count
            positions = positions + after * torch.from_numpy(rng.integers(0, 100, (len(samples), 1)))
        ends = torch.tensor([[end + s for end in p.option_ends] for p, s in zip(prompts, shifts, strict=True)])
        runs, states, tags = self._dense(samples, prompts, starts, vision, ends, bare)
        return Batch(
            embeds=embeds,
            mask=mask,
            positions=positions,
            right=torch.tensor([sample.choice.right for sample in samples]),
            answers=ids[:, -2:],
            ends=ends,
            run_places=torch.tensor([place for place, _ in runs]),
            runs=torch.tensor([run for _, run in runs]),
            state_places=torch.tensor([place for place, _ in states]),
            told=torch.tensor([told for _, told in states]),
            tag_places=torch.tensor([place for place, _ in tags]).view(-1, 2),
            tags=torch.tensor([tag for _, tag in tags]),
        )

    def _dense(
        self,
        samples: Sequence[Sample],
        prompts: Sequence[Prompt],
        starts: Sequence[int],
        vision: int,
        ends: Tensor,
        bare: bool,
    ) -> tuple[list[tuple[tuple[int, int], Any]], ...]:
        runs: list[tuple[tuple[int, int], Any]] = []
        states: list[tuple[tuple[int, int], Any]] = []
        tags: list[tuple[tuple[int, int], Any]] = []
        for row, (sample, start) in enumerate(zip(samples, starts, strict=True)):
            run, before = -1, None
            for k, told in enumerate(sample.told.tolist()):
                run += told not in (before, -1)
                before = told
                if told >= 0:
                    runs.append(((row, start + vision + k), min(run, MAX_RUNS - 1)))
            right = sample.choice.words[sample.choice.right]
            for words, end in zip(sample.choice.words, ends[row].tolist(), strict=True):
                for k, word in enumerate(words):
                    # Letter, ".", the words, ".", line break.
                    place = end - 1 - len(words) + k
                    there = k < len(right) and _same(right[k], word)
                    states.append(((row, place), (any(_same(word, other) for other in right), there)))
        if not bare:
            lines = [f"{sample.question.text}\nOptions:\n" for sample in samples]
            found = self.tokenizer(lines, add_special_tokens=False, return_offsets_mapping=True)
            for row, (sample, offsets) in enumerate(zip(samples, found["offset_mapping"], strict=True)):
                # An option is its letter, ".", its words, "." and a line break.
                first = int(ends[row, 0]) - len(sample.choice.words[0]) - 3 - len(offsets)
                for k, tag in enumerate(token_tags(sample.question, offsets)):
                    tags.append(((row, first + k), tag))
        return runs, states, tags


def _same(word: str, other: str) -> bool:
    """True where two words of options tell the same state."""
    return word == other or (word.split(" ")[-1] == other.split(" ")[-1] and _phrase(word) == _phrase(other))


def _phrase(word: str) -> str:
    for opening in (", then ", " It is ", " It faces ", " It moves ", " It ", " "):
        if word.startswith(opening):
            return word.removeprefix(opening).lower()
    return word


class Probes(nn.Module):
    """Heads of the dense losses."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.run, self.told, self.tag = (nn.Linear(width, n) for n in (MAX_RUNS, 2, NUM_TAGS))
        self.right = nn.Linear(width, 1)


@dataclass
class States:
    """States of the language model's tokens, [b, s, d] each."""

    early: Tensor
    """After half of the layers."""
    late: Tensor
    """Before the last layer, normalised as the last ones are."""
    last: Tensor


def run_model(model: Any, batch: Batch) -> States:
    """Run the language model on a batch."""
    language_model = model.model.language_model
    found = language_model(
        inputs_embeds=batch.embeds,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=True,
    )
    early, late = found.hidden_states[len(language_model.layers) // 2], found.hidden_states[-2]
    return States(language_model.norm(early), language_model.norm(late), found.last_hidden_state)


def losses(states: States, batch: Batch, probes: Probes, words: Tensor, letters: Sequence[int]) -> dict[str, Tensor]:
    """Losses by name, and the shares that are right: `letter`, `option`, `present`."""
    last, rows = states.last, torch.arange(len(states.last))[:, None]
    spoken = last[:, -3:-1] @ words.T  # [b, 2, vocabulary]
    own = words[list(letters)]
    scores = (last[rows, batch.ends] * own).sum(-1)
    before = probes.right(states.late[rows, batch.ends])[..., 0]
    chosen = spoken[:, 0, list(letters)]
    runs = probes.run(states.early[batch.run_places[:, 0], batch.run_places[:, 1]])
    told = probes.told(states.late[batch.state_places[:, 0], batch.state_places[:, 1]])
    found = {
        "answer": F.cross_entropy(spoken[:, 0], batch.answers[:, 0]),
        "end": F.cross_entropy(spoken[:, 1], batch.answers[:, 1]),
        "options": F.cross_entropy(scores, batch.right),
        "options_before": F.cross_entropy(before, batch.right),
        "runs": F.cross_entropy(runs, batch.runs),
        "told": F.binary_cross_entropy_with_logits(told, batch.told.float()),
        "letter": (chosen.argmax(-1) == batch.right).float().mean(),
        "option": (scores.argmax(-1) == batch.right).float().mean(),
        "before": (before.argmax(-1) == batch.right).float().mean(),
        "present": ((told > 0) == batch.told).float().mean(),
    }
    if len(batch.tags):
        tagged = probes.tag(last[batch.tag_places[:, 0], batch.tag_places[:, 1]])
        found["tags"] = F.cross_entropy(tagged, batch.tags)
    return found


def match_words(language_model: Any, layers: int = 3, scale: float = 1.5) -> None:
    """Begin with heads that find what is like themselves: in the dimensions that RoPE hardly turns, every second head
    has its keys' projection for its queries'. From there, finding the state that an option tells takes a tenth of the
    batches.
    """
    config = language_model.config
    width = config.hidden_size // config.num_attention_heads
    together = config.num_attention_heads // config.num_key_value_heads
    slow = [*range(width // 4, width // 2), *range(3 * width // 4, width)]
    with torch.no_grad():
        for layer in language_model.layers[:layers]:
            queries, keys = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
            for group in range(config.num_key_value_heads):
                same = scale * nn.init.orthogonal_(torch.empty(len(slow), config.hidden_size))
                queries[[group * together * width + k for k in slow]] = same
                keys[[group * width + k for k in slow]] = same


BATCH, RATE, COOLING = 32, 2e-3, 0.4
"""Samples of a batch, learning rate, and the last part of the steps in which it falls."""
BARE, WHOLE = 0.2, 0.4
"""First part of the steps, in which no prompt is whole, and share of batches of whole prompts after it."""
FREE_FORM = 0.4
"""Likelihood of a family beside that of a template."""
HARDER = 0.7
"""Share of options found right at their ends above which states are told worse."""
KEPT = 50
WEIGHTS = {"answer": 1.0, "end": 0.1, "options": 0.5, "options_before": 1.0, "runs": 0.5, "told": 2.0, "tags": 0.3}


def train_language(
    model: Any,
    tokenizer: Any,
    codes: Tensor,
    steps: int,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
    state: Path,
) -> None:
    """Train the language model of a model in place; its word embeddings stay.

    A step's samples follow from its number, so that a run that was stopped goes on.

    Args:
        report: called with (step, figures) every KEPT steps.
        state: file of a run that was stopped, and of this one every KEPT steps.
    """
    torch.manual_seed(seed)
    letters = model.config.letter_token_ids
    maker, teller = Maker(model, tokenizer, codes), Teller(tokenizer, codes)
    probes = Probes(codes.shape[1])
    language_model = model.model.language_model
    learned = [p for n, p in language_model.named_parameters() if "embed_tokens" not in n] + list(probes.parameters())
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01, betas=(0.9, 0.99))
    first, hardness, mean = 0, 0.0, dict[str, float]()
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        language_model.load_state_dict(kept["model"])
        probes.load_state_dict(kept["probes"])
        optimizer.load_state_dict(kept["optimizer"])
        first, hardness, mean = kept["step"], kept["hardness"], kept["mean"]
    model.train()
    for step in range(first, steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 50, max((steps - step) / (COOLING * steps), 0.01))
        samples, bare, grid, rng = draw_samples(teller, step, steps, seed, hardness)
        batch = maker.batch(samples, bare, grid, rng)
        found = losses(run_model(model, batch), batch, probes, codes, letters)
        take_step(optimizer, learned, found, WEIGHTS, mean)
        if mean["option"] > HARDER:
            hardness = min(1.0, hardness + 0.002)
        if (step + 1) % KEPT == 0 or step + 1 == steps:
            kept = {"model": language_model.state_dict(), "probes": probes.state_dict(), "step": step + 1}
            kept |= {"optimizer": optimizer.state_dict(), "hardness": hardness, "mean": mean}
            torch.save(kept, state)
            report(step + 1, {**mean, "hardness": hardness})
    model.eval()


def draw_samples(
    teller: Teller, step: int, steps: int, seed: int, hardness: float
) -> tuple[list[Sample], bool, tuple[int, int, int], np.random.Generator]:
    """Samples of a step, whether their prompts are bare, their vision tokens' grid, and the generator to go on with."""
    questions, bare = step_questions(step, steps, seed)
    rng = np.random.default_rng([seed, 1, step])
    count = int(rng.choice(NUM_TOKENS))
    grid = (int(rng.integers(1, 5)), 1, 1) if bare else GRIDS[rng.integers(len(GRIDS))]
    return [draw_sample(teller, question, hardness, count, rng) for question in questions], bare, grid, rng


def step_questions(step: int, steps: int, seed: int) -> tuple[list[QuestionText], bool]:
    """Questions of a step, and whether they are left out of the prompts: so in the first steps, and often later."""
    rng = np.random.default_rng([seed, 5, step])
    bare = step < BARE * steps or rng.random() > WHOLE
    return draw_questions(names(), BATCH, rng), bool(bare)


@torch.no_grad()
def measure(
    model: Any,
    tokenizer: Any,
    codes: Tensor,
    telling: float | Telling,
    seed: int,
    count: int = 512,
    bare: bool = False,
    grid: tuple[int, int, int] = (16, 2, 3),
    tokens: int = 8,
) -> dict[str, float]:
    """Share of letters that are right on samples with held-out names, beside what reading the tokens by hand gives:
    `letters`, `options`, `decoded`.
    """
    rng = np.random.default_rng([seed, 2])
    maker, teller = Maker(model, tokenizer, codes), Teller(tokenizer, codes)
    letters = model.config.letter_token_ids
    right: dict[str, list[bool]] = {"letters": [], "options": [], "decoded": []}
    for _ in range(0, count, 64):
        questions = draw_questions(names(True), 64, rng)
        samples = [draw_sample(teller, question, telling, tokens, rng) for question in questions]
        batch = maker.batch(samples, bare, grid, rng)
        hidden = run_model(model, batch).last
        rows = torch.arange(len(hidden))[:, None]
        chosen = hidden[:, -3] @ codes[letters].T
        scores = (hidden[rows, batch.ends] * codes[letters]).sum(-1)
        right["letters"] += (chosen.argmax(-1) == batch.right).tolist()
        right["options"] += (scores.argmax(-1) == batch.right).tolist()
        right["decoded"] += [decode(sample, teller) == sample.choice.right for sample in samples]
    return {name: float(np.mean(values)) for name, values in right.items()}


def decode(sample: Sample, teller: Teller) -> int:
    """The option that geometry tokens tell best: runs spread over moments in order, by a hidden Markov chain."""
    vocabulary = sample.choice.vocabulary
    words = teller.words(sample.question.form, vocabulary)
    logits = sample.geometry[: len(sample.choice.states)] @ words.T / 8
    logits = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logits -= logits.max(-1, keepdims=True)
    phrases = [_phrase(word) for word in vocabulary.words]
    scores = []
    for option in sample.choice.words:
        runs = [phrases.index(_phrase(word)) for word in option]
        if len(runs) > len(logits):
            scores.append(-np.inf)
            continue
        best = np.full(len(runs), -np.inf)
        best[0] = logits[0, runs[0]]
        for moment in logits[1:]:
            best = np.logaddexp(best, np.concatenate([[-np.inf], best[:-1]])) + moment[runs]
        scores.append(best[-1])
    return int(np.argmax(scores))
