"""DSR questions as a VLMEvalKit dataset; written by `dsr export vlmevalkit`. Set DSR_EXPORT to the export's folder."""

import os
import re

import pandas as pd
from vlmeval.dataset.video_base import VideoBaseDataset
from vlmeval.smp import dump, load


class DSRBench(VideoBaseDataset):
    TYPE = "Video-MCQ"

    def __init__(self, dataset="DSR-Bench", pack=False, nframe=0, fps=-1):
        super().__init__(dataset=dataset, pack=pack, nframe=nframe, fps=fps)

    @classmethod
    def supported_datasets(cls):
        return ["DSR-Bench"]

    def prepare_dataset(self, dataset):
        root = os.environ["DSR_EXPORT"]
        return {"root": root, "data_file": os.path.join(root, f"{dataset}.tsv")}

    def build_prompt(self, line, video_llm):
        if isinstance(line, int):
            line = self.data.iloc[line]
        if video_llm:
            visual = [{"type": "video", "value": os.path.join(self.data_root, line["video"] + ".mp4")}]
        else:
            visual = [{"type": "image", "value": frame} for frame in self.save_video_frames(line["video"])]
        return [*visual, {"type": "text", "value": line["prompt"]}]

    @classmethod
    def evaluate(cls, eval_file, **judge_kwargs):
        data = load(eval_file)
        found = [cls.letter_of(str(text)) for text in data["prediction"]]
        data["right"] = [letter == answer for letter, answer in zip(found, data["answer"])]  # noqa: B905
        quartets = data[data["quartet_id"].notna()].groupby("quartet_id")["right"].agg(["size", "all"])
        rows = [("all", data["right"].mean()), *data.groupby("type")["right"].mean().items()]
        rows.append(("quartets", quartets.loc[quartets["size"] == 4, "all"].mean()))
        result = pd.DataFrame(rows, columns=["split", "accuracy"])
        dump(result, os.path.splitext(eval_file)[0] + "_acc.csv")
        return result

    @staticmethod
    def letter_of(text):
        """The letter that a text begins with or names as its answer; "" where it does neither."""
        text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL).replace("**", "").strip()
        first = re.match(r"[(\[]?([A-Z])(?:[)\].:]|\s*$)", text)
        said = re.findall(r"answer(?:\s+is)?\s*:?\s*(?:option\s+)?[(\[]?([A-Z])(?![\w'])", text)
        letters = {first[1]} if first else set(said)
        return letters.pop() if len(letters) == 1 else ""
