"""States that a model takes for one another."""

import pandas as pd

from dsr.questions.language.templates import axis_words

_AXES = ("front / behind", "left / right", "above / below")


def confusion_table(score: pd.DataFrame) -> pd.DataFrame:
    """Right states next to those predicted in their places: type (and axis), right, predicted, states, share.

    The runs of states that the right and the predicted option tell are compared place by place, as far as both go; a
    direction's three axes each on their own. `share` is of a right state's places.

    Args:
        score: predictions; no row comes of texts that are not the templates'.
    """
    scored = score[score["status"] == "scored"]
    words = {kind: axis_words(kind) for kind in scored["type"].unique()}
    columns = (scored[name] for name in ("type", "answer_states", "predicted_states"))
    signs = [
        (kind, axis, *signs)
        for kind, right, predicted in zip(*columns, strict=True)
        if words[kind]
        for states in zip(right.split(), predicted.split(), strict=False)
        for axis, signs in enumerate(zip(*states, strict=True))
    ]
    counts = pd.DataFrame(signs, columns=["type", "axis", "right", "predicted"]).value_counts(sort=False).sort_index()
    rows = counts.rename("states").reset_index()
    share = rows["states"] / rows.groupby(["type", "axis", "right"])["states"].transform("sum")
    for column in ("right", "predicted"):
        named = zip(rows["type"], rows["axis"], rows[column], strict=True)
        rows[column] = [words[kind][axis][sign] for kind, axis, sign in named]
    places = zip(rows["type"], rows["axis"], strict=True)
    kinds = [f"{kind}, {_AXES[axis]}" if len(words[kind]) > 1 else kind for kind, axis in places]
    return rows.assign(type=kinds, share=share).drop(columns="axis")
