"""Losses of training beside that on the answer, and what geometry tokens say.

- Option loss: the letter after the prompt is to be right among the four, not in the whole vocabulary alone, and at the
  end of each option the model is asked whether this is the one: the logit of the option's own letter there, compared
  over the four, should single out the right one.
- State loss: geometry token i should be the sentence of the state at key moment i (dsr.training.guidance), as the word
  embeddings spell it: more like it than the sentences of the form's other states, and as near as what is seen allows.
- Attention loss: where a geometry token's query should look in the 3D tokens.

Letters: b questions, N geometry tokens, S states, d width, h heads, k 3D tokens.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dsr.model.qwen2_5_vl_gsm import IGNORED


def option_scores(logits: Tensor, option_ends: Tensor, letters: Tensor) -> Tensor:
    """The logit of each option's letter at the option's end, [b, 4].

    Args:
        logits: [b, s, vocabulary].
        option_ends: [b, 4] int64, place of each option's last token.
        letters: [4] int64, tokens of the letters.
    """
    rows = torch.arange(len(logits), device=logits.device)[:, None]
    return logits[rows, option_ends, letters].float()


def state_log_probs(tokens: Tensor, sentences: Tensor, possible: Tensor) -> Tensor:
    """[b, N, S] log-probabilities of the states that geometry tokens say.

    Args:
        tokens: [b, N, d].
        sentences: [S, d] embeddings of the states' sentences, of root mean square one.
        possible: [b, S] bool, states that answers to a question can have.
    """
    scores = tokens.float() @ sentences.float().T * sentences.shape[-1] ** -0.5
    return scores.masked_fill(~possible[:, None], float("-inf")).log_softmax(-1)


def state_loss(tokens: Tensor, sentences: Tensor, possible: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and for each token with a state whether it says that one, [n] bool.

    Each question counts the same, however many states it has. The expected embedding of what is not certain has the
    least squares: a language model can read it as it reads words.

    Args:
        states: [b, N] int64, place of each token's state in `sentences`; IGNORED for a token without.
    """
    has_state = states != IGNORED
    wanted = states[has_state]
    log_probs = state_log_probs(tokens, sentences, possible)[has_state]
    distance = (tokens[has_state].float() - sentences[wanted].float()).square().mean(-1)
    loss = F.nll_loss(log_probs, wanted, reduction="none") + distance
    per_question = has_state.sum(-1)
    share = (has_state / per_question.clamp(min=1)[:, None])[has_state]
    return (share * loss).sum() / (per_question > 0).sum().clamp(min=1), log_probs.detach().argmax(-1) == wanted


def attention_loss(log_probs: Tensor, keys: Tensor) -> Tensor:
    """Mean negative log-probability of the 3D tokens that heads should look at; 0 where there are none.

    Each question counts the same.

    Args:
        log_probs: [b, h, N, k] of the selector's attention.
        keys: [b, h, N] int64; negative: any.
    """
    found = log_probs.gather(-1, keys.clamp(min=0)[..., None])[..., 0]
    known = keys >= 0
    per_question = known.sum((1, 2))
    return -((found * known).sum((1, 2)) / per_question.clamp(min=1)).sum() / (per_question > 0).sum().clamp(min=1)


def option_log_likelihood(log_probs: Tensor, answer: Sequence[int]) -> float:
    """Log-likelihood of an answer, over all ways to spread its states over the moments in their order.

    Args:
        log_probs: [M, S] at each key moment.
        answer: states one after another; more than M have none.
    """
    chosen = log_probs[:, list(answer)].double()  # [M, runs]
    if len(answer) > len(chosen):
        return float("-inf")
    total = torch.full((len(answer),), float("-inf"), dtype=torch.float64)
    total[0] = chosen[0, 0]
    for moment in chosen[1:]:
        before = torch.cat([total.new_full((1,), float("-inf")), total[:-1]])
        total = torch.logaddexp(total, before) + moment
    return float(total[-1])
