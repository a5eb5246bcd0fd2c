"""DSR questions as an lmms-eval task; written by `dsr export lmms-eval`."""

import re
from collections import defaultdict


def doc_to_visual(doc, lmms_eval_specific_kwargs=None):
    return [doc["video"]]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["prompt"] + (lmms_eval_specific_kwargs or {}).get("post_prompt", "")


def letter_of(text, letters):
    """The letter that a text begins with or names as its answer; "" where it does neither."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL).replace("**", "").strip()
    first = re.match(rf"[(\[]?([{letters}])(?:[)\].:]|\s*$)", text)
    said = re.findall(rf"answer(?:\s+is)?\s*:?\s*(?:option\s+)?[(\[]?([{letters}])(?![\w'])", text, re.IGNORECASE)
    found = {first[1]} if first else {letter.upper() for letter in said}
    return found.pop() if len(found) == 1 else ""


def process_results(doc, results):
    prediction = letter_of(results[0], "".join(option[0] for option in doc["options"]))
    row = {"type": doc["type"], "quartet": doc["quartet_id"], "right": prediction == doc["answer"]}
    return {"accuracy": row, "accuracy_by_type": row, "quartet_accuracy": row}


def accuracy(rows):
    return sum(row["right"] for row in rows) / len(rows)


def accuracy_by_type(rows):
    kinds = defaultdict(list)
    for row in rows:
        kinds[row["type"]].append(row)
    return {kind: accuracy(own) for kind, own in sorted(kinds.items())}


def quartet_accuracy(rows):
    quartets = defaultdict(list)
    for row in rows:
        if row["quartet"]:
            quartets[row["quartet"]].append(row["right"])
    whole = [all(own) for own in quartets.values() if len(own) == 4]
    return sum(whole) / len(whole) if whole else 0.0
