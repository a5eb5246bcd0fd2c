"""Qwen2.5-VL that is given geometry with a video: transformers' model, with 3D tokens beside its vision tokens.

`gsm.fusion`
- `none`: the model as it is.
- `add`: every 3D token is added to the vision token of its cell.
- `gsm`: the Geometry Selection Module turns them into `gsm.num_tokens` tokens for each video and question, which follow
  the vision tokens inside the video span: <|vision_start|> vision… geometry… <|vision_end|>. Their places are
  <|video_pad|> tokens too (as published), and their positions are those of text after the video.

`gsm.question`, what the GSM's condenser reads of a question
- `embeddings`: the language model's token embeddings of all text (as published).
- `states`: its last hidden states of the question's line, read by itself.
- `reader`: the slots that a question reader fills from the line (dsr.model.reader), addressed as 3D tokens are.

Several questions about a clip can be given as one packed row that holds the video once (dsr.model.shared_prefix).

Without a video everything goes through the parent class unchanged. A video's temporal positions are computed from its
real seconds: transformers 4.57 first rounds the seconds between two groups down, which puts all groups of a video with
more than two frames a second at the same time.

Letters: b samples, s tokens of a sample (of a packed row), v videos of the whole batch, d width.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, ModelOutput
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from dsr.mcq import DEFAULT_PROMPT
from dsr.model.address import Address
from dsr.model.geometry_encoders import (
    ENCODERS,
    PADDING,
    AddressedEncoder,
    GeometryEncoder,
    GeometryTokens,
    concatenate,
)
from dsr.model.gsm import GeometrySelectionModule, Look
from dsr.model.reader import QuestionReader, QuestionSlots, Reading
from dsr.model.shared_prefix import ATTENTION, Packing
from dsr.model.transformers_versions import picture_features, register_names, token_types, with_older_rope

IGNORED = -100
"""Label of a token without loss."""
HEADER_TOKENS = 3
"""<|im_start|>assistant⏎, which opens an answer."""
QWEN_SPECIAL_TOKENS = (151643, 151644, 151645, 151652, 151653, 151654, 151655, 151656)
"""Tokens of Qwen's vocabulary that the published model's GSM does not read: chat, vision and padding marks."""
QWEN_LETTERS = (32, 33, 34, 35)
"""Tokens A to D in Qwen's vocabulary."""
GSM_DEFAULTS: dict[str, Any] = {
    "fusion": "gsm",
    "num_tokens": 32,
    "encoders": ["point_map", "tracks"],
    "question": "embeddings",
}
OWN_PARTS = ("model.geometry.", "model.address.", "model.slots.", "model.gsm.")
"""Beginnings of the names of what Qwen2.5-VL lacks, but for the question reader."""
READER = "model.reader."

Geometry = Mapping[str, Mapping[str, Tensor]]
"""Batch inputs of each encoder, `geometry["tracks"]["values"]`, first axis v. An encoder of frames needs none: it looks
at the video itself, or, where there are some, at those."""


class Qwen2_5_VLGSMConfig(Qwen2_5_VLConfig):
    """Qwen2.5-VL's configuration with `gsm` and the tokens that its inputs turn on.

    `gsm` has fusion, num_tokens, encoders, question, and `sizes`: those of an encoder that are not its defaults, by its
    name. `pretrained_reader`: the question reader was trained before, and stays as it is. `prompt` names the form of
    `dsr.mcq.PROMPTS` that it was trained with.
    """

    model_type = "qwen2_5_vl_gsm"
    prompt = DEFAULT_PROMPT  # in a file where it is another

    def __init__(
        self,
        gsm: Mapping[str, Any] | None = None,
        special_token_ids: Sequence[int] = QWEN_SPECIAL_TOKENS,
        letter_token_ids: Sequence[int] = QWEN_LETTERS,
        prompt: str = DEFAULT_PROMPT,
        **kwargs: Any,
    ) -> None:
        if isinstance(text := kwargs.get("text_config"), Mapping):
            kwargs["text_config"] = with_older_rope(text)
        super().__init__(**kwargs)
        self.gsm = GSM_DEFAULTS | dict(gsm or {})
        self.special_token_ids = list(special_token_ids)
        self.letter_token_ids = list(letter_token_ids)
        if prompt != DEFAULT_PROMPT:
            self.prompt = prompt

    @property
    def num_geometry_tokens(self) -> int:
        """Tokens that follow a video's vision tokens."""
        return self.gsm["num_tokens"] if self.gsm["fusion"] == "gsm" else 0

    @property
    def reads_line_alone(self) -> bool:
        """True if the GSM is given the question's line and no other text."""
        return self.gsm["question"] != "embeddings"


class Qwen2_5_VLGSMModel(Qwen2_5_VLModel):
    config: Qwen2_5_VLGSMConfig

    def __init__(self, config: Qwen2_5_VLGSMConfig) -> None:
        super().__init__(config)
        if config.gsm["fusion"] != "none":
            encoders = config.gsm["encoders"]
            sizes = config.gsm.get("sizes", {})
            self.geometry = nn.ModuleDict(
                {name: ENCODERS[name](config.text_config, sizes.get(name)) for name in encoders}
            )
        if config.gsm["fusion"] == "gsm":
            reads = config.gsm["question"] == "reader"
            self.gsm = GeometrySelectionModule(config.text_config, config.gsm["num_tokens"], tied=reads)
            if reads:
                self.reader = QuestionReader(config.text_config)
                self.slots = QuestionSlots(config.text_config)
        if "model.address." in own_parts(config.gsm):
            self.address = Address(config.text_config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        draw_own_weights(module)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Tensor | None = None,
        geometry: Geometry | None = None,
        question_mask: Tensor | None = None,
        packing: Packing | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the parent's forward pass with geometry in the videos.

        Args:
            geometry: of every video; not needed with fusion `none`.
            question_mask: [b, s] bool, the tokens that ask; see `default_question_mask`.
            packing: input_ids are a packed row [1, s] of clips, each with one video.

        Raises:
            ValueError: a video without geometry, or whose <|video_pad|> tokens do not fit its grid.
        """
        if packing is not None:
            if input_ids is None or pixel_values_videos is None or video_grid_thw is None or question_mask is None:
                raise ValueError("a packed row needs input_ids, question_mask and the videos of its clips")
            return self._packed_forward(
                input_ids, packing, pixel_values_videos, video_grid_thw, second_per_grid_ts, geometry, question_mask
            )
        if pixel_values_videos is not None:
            if input_ids is None or video_grid_thw is None:
                raise ValueError("a video needs input_ids and video_grid_thw")
            if inputs_embeds is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            if position_ids is None:
                position_ids, self.rope_deltas = self.get_rope_index(
                    input_ids, image_grid_thw, video_grid_thw, second_per_grid_ts, attention_mask
                )
            owners = self._owners(input_ids, video_grid_thw)
            video, tokens = self._encode(pixel_values_videos, video_grid_thw, geometry)
            if tokens is not None:
                if question_mask is None:
                    question_mask = default_question_mask(self.config, input_ids, attention_mask)
                length = int(question_mask.sum(-1).max())
                # A stable sort by "not in the question" puts the question's tokens first, in order.
                order = (~question_mask).long().argsort(dim=-1, stable=True)[:, :length]
                question = inputs_embeds.gather(1, order[..., None].expand(-1, -1, inputs_embeds.shape[-1]))
                mask = question_mask.gather(1, order)
                selected = self._select(question[owners], mask[owners], tokens, second_per_grid_ts)
                video = [part for pair in zip(video, selected, strict=True) for part in pair]
            inputs_embeds = self._scatter(inputs_embeds, input_ids, video)
            if pixel_values is not None:
                images = self.get_image_features(pixel_values, image_grid_thw)
                images = torch.cat(picture_features(images)).to(inputs_embeds)
                places, _ = self.get_placeholder_mask(input_ids, inputs_embeds, image_features=images)
                inputs_embeds = inputs_embeds.masked_scatter(places, images)
            input_ids = pixel_values = None
        if input_ids is not None and image_grid_thw is not None and kwargs.get("mm_token_type_ids") is None:
            kwargs |= token_types(self.config, input_ids)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            second_per_grid_ts=second_per_grid_ts,
            **kwargs,
        )

    def _owners(self, input_ids: Tensor, grid_thw: Tensor) -> Tensor:
        """[v] the sample that each video is in; checks that the prompt has a place for every token."""
        config = self.config
        is_video = input_ids == config.video_token_id
        starts = is_video[:, 1:] & (input_ids[:, :-1] == config.vision_start_token_id)
        owners = starts.nonzero()[:, 0]
        vision, extra = int(grid_thw.prod(-1).sum()) // config.vision_config.spatial_merge_size**2, len(grid_thw)
        needed = vision + extra * config.num_geometry_tokens
        if len(owners) != len(grid_thw) or int(is_video.sum()) != needed:
            raise ValueError(
                f"{len(grid_thw)} videos of {vision} vision tokens together and {config.num_geometry_tokens} geometry "
                f"tokens each need {needed} <|video_pad|> tokens; the prompts have {int(is_video.sum())} of them in "
                f"{len(owners)} spans"
            )
        return owners

    def _packed_forward(
        self,
        input_ids: Tensor,
        packing: Packing,
        pixel_values_videos: Tensor,
        video_grid_thw: Tensor,
        second_per_grid_ts: Tensor | None,
        geometry: Geometry | None,
        question_mask: Tensor,
    ) -> BaseModelOutputWithPast:
        """Last hidden states [1, s, d] of a packed row."""
        self._check_packing(input_ids, packing, video_grid_thw)
        embeds = self.get_input_embeddings()(input_ids)
        device = embeds.device
        parts, tokens = self._encode(pixel_values_videos, video_grid_thw, geometry)
        if tokens is not None:
            asking = question_mask[0].cpu()
            questions = [places[asking[places]].to(device) for places in packing.sequences()]
            mask = pad_sequence([torch.ones_like(places, dtype=torch.bool) for places in questions], batch_first=True)
            question = embeds[0, pad_sequence(questions, batch_first=True)]
            owners = torch.tensor(packing.owners, device=device)
            selected = iter(self._select(question, mask, tokens, second_per_grid_ts, owners))
            parts = [
                part
                for vision, clip in zip(parts, packing.clips, strict=True)
                for part in (vision, *(next(selected) for _ in clip.branches))
            ]
        if self.language_model.config._attn_implementation != ATTENTION:
            self.language_model.set_attn_implementation(ATTENTION)
        outputs = self.language_model(
            inputs_embeds=self._scatter(embeds, input_ids, parts),
            position_ids=self._packed_positions(input_ids, packing, video_grid_thw, second_per_grid_ts),
            attention_mask=dict.fromkeys(self.language_model.config.layer_types, packing),
            use_cache=False,
        )
        return BaseModelOutputWithPast(last_hidden_state=outputs.last_hidden_state)

    def _check_packing(self, input_ids: Tensor, packing: Packing, grid_thw: Tensor) -> None:
        is_video = (input_ids[0] == self.config.video_token_id).cpu()
        vision = (grid_thw.prod(-1) // self.config.vision_config.spatial_merge_size**2).tolist()
        extra = self.config.num_geometry_tokens
        if packing.length != len(is_video) or len(packing.clips) != len(vision):
            raise ValueError(
                f"a packing of {len(packing.clips)} clips and {packing.length} tokens does not describe "
                f"{len(vision)} videos and {len(is_video)} tokens"
            )
        for (clip, start, middle, end), needed in zip(packing.spans(), vision, strict=True):
            found = int(is_video[start:middle].sum()), int(is_video[middle:end].sum())
            if found != (needed, extra * len(clip.branches)) or not is_video[middle - 1]:
                raise ValueError(
                    f"a clip of {needed} vision tokens and {len(clip.branches)} branches of {extra} geometry tokens "
                    f"has {found[0]} <|video_pad|> tokens in its prefix, which they must end, and {found[1]} in its "
                    "branches"
                )

    def _packed_positions(self, input_ids: Tensor, packing: Packing, grid_thw: Tensor, seconds: Any) -> Tensor:
        """[3, 1, s]; a branch goes on after its clip's vision tokens."""
        seconds = [1.0] * len(grid_thw) if seconds is None else [float(s) for s in seconds]
        videos = iter(list(zip(grid_thw.tolist(), seconds, strict=True)))
        ids, parts = input_ids[0].tolist(), []
        for clip, start, middle, _ in packing.spans():
            parts.append(self._sample_positions(ids[start:middle], iter([]), videos))
            following = int(parts[-1].max()) + 1
            parts += [torch.arange(following, following + length).expand(3, -1) for length in clip.branches]
        return torch.cat(parts, dim=1)[:, None].to(input_ids.device)

    def _encode(
        self, pixel_values_videos: Tensor, grid_thw: Tensor, geometry: Geometry | None
    ) -> tuple[list[Tensor], GeometryTokens | None]:
        """Vision tokens v x [tokens, d], with fusion `add` geometry among them, and the 3D tokens for the GSM."""
        video = picture_features(self.get_video_features(pixel_values_videos, grid_thw))
        fusion = self.config.gsm["fusion"]
        if fusion == "none":
            return video, None
        tokens = self._encode_geometry(geometry or {}, pixel_values_videos, grid_thw, self.get_input_embeddings())
        if fusion == "gsm":
            return video, tokens
        return [self._add(*part) for part in zip(video, tokens.states, tokens.cells, grid_thw, strict=True)], None

    def _encode_geometry(
        self, geometry: Geometry, pixel_values_videos: Tensor | None, grid_thw: Tensor, words: nn.Embedding
    ) -> GeometryTokens:
        encoded = []
        own = {} if pixel_values_videos is None else {"patches": pixel_values_videos, "grid_thw": grid_thw}
        for name, encoder in cast(Iterable[tuple[str, GeometryEncoder]], self.geometry.items()):
            inputs = geometry.get(name, own if encoder.reads_video else {})
            if not inputs or len(inputs[encoder.inputs[-1]]) != len(grid_thw):
                fusion = self.config.gsm["fusion"]
                raise ValueError(f"fusion {fusion!r} needs geometry[{name!r}] for {len(grid_thw)} videos")
            if encoder.reads_video:
                inputs = {**inputs, "places": grid_thw}
            encoded.append(encoder(inputs, words, self.address if encoder.is_addressed else None))
        return concatenate(encoded)

    def _scatter(self, embeds: Tensor, input_ids: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Embeddings [b, s, d] with the parts [tokens, d], one after another, in the places of <|video_pad|>."""
        places = (input_ids == self.config.video_token_id)[..., None]
        return embeds.masked_scatter(places, torch.cat(list(parts)).to(embeds))

    def _add(self, vision: Tensor, states: Tensor, cells: Tensor, thw: Tensor) -> Tensor:
        """Vision tokens [tokens, d] of a video with each 3D token [k, d] added at its cell [k, 3]."""
        rows, columns = (thw[1:] // self.config.vision_config.spatial_merge_size).tolist()
        known = cells[:, 0] != PADDING
        time, row, column = cells[known].unbind(-1)
        return vision.index_add(0, (time * rows + row) * columns + column, states[known].to(vision.dtype))

    def _select(
        self,
        question: Tensor,
        mask: Tensor,
        tokens: GeometryTokens,
        seconds: Any,
        videos: Tensor | None = None,
        look: Look | None = None,
        reading: Reading | None = None,
    ) -> Any:
        """[b, N, d] geometry tokens for questions [b, l, d], each about its video; with `look` also the attention."""
        step = torch.as_tensor(1.0 if seconds is None else seconds, dtype=torch.float32, device=question.device)
        time = tokens.cells[..., 0] * step.reshape(-1, 1) * self.config.vision_config.tokens_per_second
        positions = torch.stack([time.long(), tokens.cells[..., 1], tokens.cells[..., 2]]) * tokens.mask
        states, mask = self._read(question, mask, reading)
        return self.gsm(states, mask, tokens.states.to(question.dtype), tokens.mask, positions, videos, look)

    def _read(self, words: Tensor, mask: Tensor, reading: Reading | None = None) -> tuple[Tensor, Tensor]:
        """States that the condenser attends to, and their mask, of questions' token embeddings [b, l, d]."""
        if self.config.gsm["question"] == "reader":
            return self.slots(self.reader(words, mask) if reading is None else reading, words, self.address)
        if self.config.gsm["question"] == "states":
            outputs = self.language_model(inputs_embeds=words, attention_mask=mask.long(), use_cache=False)
            return outputs.last_hidden_state, mask
        return words, mask

    def select(self, asked: Mapping[str, Any]) -> "GSMOutput":
        """Geometry tokens for questions, without the language model.

        Args:
            asked: question_ids [b, l], question_mask [b, l], and geometry, video_grid_thw,
                second_per_grid_ts and, for an encoder of frames, pixel_values_videos as in `forward`. Where they are
                there, `videos` [b], the video of each question (without it question i is about video i), `look`, and
                `reading`, the parts of the questions' `Reading` by name, where they have been read before.
        """
        words = self.get_input_embeddings()
        grid_thw, patches = asked["video_grid_thw"], asked.get("pixel_values_videos")
        tokens = self._encode_geometry(asked["geometry"], patches, grid_thw, words)
        question, look = words(asked["question_ids"]), asked.get("look")
        reading = Reading(**asked["reading"]) if "reading" in asked else None
        seconds, videos = asked["second_per_grid_ts"], asked.get("videos")
        selected = self._select(question, asked["question_mask"], tokens, seconds, videos, look, reading)
        return GSMOutput(selected) if look is None else GSMOutput(*selected)

    def get_rope_index(
        self,
        input_ids: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Any = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Positions [3, b, s] of every token, and [b, 1] what to add to the place of a token after the prompt.

        As the parent's for text and images. Group g of a video is at time g x seconds x tokens_per_second, rounded
        down; its geometry tokens follow at consecutive positions, like text.
        """
        if input_ids is None or video_grid_thw is None:
            return super().get_rope_index(
                input_ids,
                image_grid_thw=image_grid_thw,
                video_grid_thw=video_grid_thw,
                second_per_grid_ts=second_per_grid_ts,
                attention_mask=attention_mask,
                **kwargs,
            )
        seconds = [1.0] * len(video_grid_thw) if second_per_grid_ts is None else [float(s) for s in second_per_grid_ts]
        images = iter([] if image_grid_thw is None else [(thw, 0.0) for thw in image_grid_thw.tolist()])
        videos = iter(list(zip(video_grid_thw.tolist(), seconds, strict=True)))
        position_ids = torch.ones(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
        deltas = []
        for i, ids in enumerate(input_ids):
            present = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask[i] == 1
            positions = self._sample_positions(ids[present].tolist(), images, videos)
            position_ids[:, i, present] = positions.to(ids.device)
            deltas.append(int(positions.max()) + 1 - len(ids))
        return position_ids, torch.tensor(deltas, device=input_ids.device)[:, None]

    def _sample_positions(
        self, ids: list[int], images: Iterator[tuple[list[int], float]], videos: Iterator[tuple[list[int], float]]
    ) -> Tensor:
        """[3, s] of one sample without padding; its images and videos are taken from the iterators."""
        config, vision = self.config, self.config.vision_config
        kinds = {config.image_token_id: images, config.video_token_id: videos}
        starts = [i for i in range(1, len(ids)) if ids[i - 1] == config.vision_start_token_id and ids[i] in kinds]
        parts, done, following = [], 0, 0
        for start in starts:
            parts.append(torch.arange(following, following + start - done).expand(3, -1))
            following += start - done
            (t, h, w), seconds = next(kinds[ids[start]])
            h, w = h // vision.spatial_merge_size, w // vision.spatial_merge_size
            grid = torch.cartesian_prod(torch.arange(t), torch.arange(h), torch.arange(w))
            time = (grid[:, 0] * seconds * vision.tokens_per_second).long()
            parts.append(torch.stack([time, grid[:, 1], grid[:, 2]]) + following)
            done, following = start + len(grid), int(parts[-1].max()) + 1
        parts.append(torch.arange(following, following + len(ids) - done).expand(3, -1))
        return torch.cat(parts, dim=1)


@dataclass
class GSMOutput(ModelOutput):
    """Output of the GSM alone."""

    geometry_tokens: Tensor | None = None
    """[b, N, d]."""
    attention: Tensor | None = None
    """[b, h, N, k] log-probabilities of the selector over the video's 3D tokens, where they were asked for."""


class Qwen2_5_VLGSMForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Qwen2_5_VLGSMModel with a language modelling head.

    It loads folders of plain Qwen2.5-VL too: the tensors that they lack start at random.
    """

    config: Qwen2_5_VLGSMConfig
    config_class = Qwen2_5_VLGSMConfig
    _checkpoint_conversion_mapping = {  # noqa: RUF012 (transformers reads it from the class)
        "^visual": "model.visual",
        r"^model(?!\.(language_model|visual|geometry|address|reader|slots|gsm))": "model.language_model",
    }

    def __init__(self, config: Qwen2_5_VLGSMConfig) -> None:
        # The parent's __init__ would make a second model and throw it away.
        super(Qwen2_5_VLForConditionalGeneration, self).__init__(config)
        self.model = Qwen2_5_VLGSMModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        draw_own_weights(module)

    def forward(  # generate() accepts what is named here
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Tensor | None = None,
        geometry: Geometry | None = None,
        question_mask: Tensor | None = None,
        packing: Packing | None = None,
        reads: Tensor | None = None,
        asked: Mapping[str, Any] | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> Any:
        """Run Qwen2_5_VLGSMModel.forward and the language modelling head.

        Args:
            labels: [b, s]; the output has a loss. With `logits_to_keep` only the last labels count, so that samples
                padded on the left need logits for their answers alone.
            packing: of a packed row.
            reads: [b, r] int64, places in each sample (in a packed row: in the row) whose logits [b, r, vocabulary] are
                wanted, and no others; the labels are [b, r] then. A packed row needs them.
            asked: in the place of all else, questions for the GSM alone (Qwen2_5_VLGSMModel.select); the output is
                their `geometry_tokens` and, with a `look`, `attention`.
        """
        if asked is not None:
            return self.model.select(asked)
        if packing is not None and (reads is None or question_mask is None):
            raise ValueError("a packed row needs reads and question_mask")
        if reads is not None:
            hidden = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                packing=packing,
                pixel_values_videos=pixel_values_videos,
                video_grid_thw=video_grid_thw,
                second_per_grid_ts=second_per_grid_ts,
                geometry=geometry,
                question_mask=question_mask,
                use_cache=False,
            ).last_hidden_state
            rows = torch.zeros_like(reads) if packing else torch.arange(len(reads), device=reads.device)[:, None]
            logits = self.lm_head(hidden[rows, reads])
            loss = None
            if labels is not None:
                loss = self.loss_function(logits, labels, self.config.text_config.vocab_size)
            return CausalLMOutputWithPast(loss=loss, logits=logits)
        if pixel_values_videos is not None:
            if question_mask is None and input_ids is not None:
                question_mask = default_question_mask(self.config, input_ids, attention_mask, labels)
            kwargs |= {"geometry": geometry, "question_mask": question_mask}
        if labels is not None and logits_to_keep:
            labels = labels[:, -logits_to_keep:]
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            second_per_grid_ts=second_per_grid_ts,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        geometry: Geometry | None = None,
        question_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        if inputs.get("pixel_values_videos") is not None:
            inputs |= {"geometry": geometry, "question_mask": question_mask}
        return inputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        geometry: Geometry | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat each sample with all its images and videos."""
        repeated: dict[str, Any] = {} if geometry is None else {"geometry": geometry}
        if expand_size > 1 and input_ids is not None:
            starts = input_ids[:, :-1] == self.config.vision_start_token_id
            for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
                grid_thw = kwargs.pop(f"{kind}_grid_thw", None)
                if grid_thw is None:
                    continue
                counts = (starts & (input_ids[:, 1:] == getattr(self.config, f"{kind}_token_id"))).sum(-1).tolist()
                rows = torch.cat([row.repeat(expand_size) for row in torch.arange(len(grid_thw)).split(counts)])
                parts = kwargs.pop(pixels).split(grid_thw.prod(-1).tolist())
                repeated |= {f"{kind}_grid_thw": grid_thw[rows], pixels: torch.cat([parts[row] for row in rows])}
                if kind == "video" and (seconds := kwargs.pop("second_per_grid_ts", None)) is not None:
                    repeated["second_per_grid_ts"] = torch.as_tensor(seconds)[rows]
                if kind == "video" and geometry is not None:
                    taken = {name: ENCODERS[name].take(inputs, rows) for name, inputs in geometry.items()}
                    repeated["geometry"] = taken
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)
        return input_ids, kwargs | repeated

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        """Positions before the first step, which transformers 5 asks for."""
        input_ids = model_kwargs.get("input_ids", inputs_tensor)
        if not input_ids.is_floating_point():
            model_kwargs = token_types(self.config, input_ids) | model_kwargs
        return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)


def own_parts(gsm: Mapping[str, Any]) -> set[str]:
    """Beginnings of the names of what a configuration adds to Qwen2.5-VL."""
    parts = set() if gsm["fusion"] == "none" else {f"model.geometry.{name}." for name in gsm["encoders"]}
    if gsm["fusion"] == "gsm":
        parts |= {"model.gsm."} | ({READER, "model.slots."} if gsm["question"] == "reader" else set())
    asks = "model.slots." in parts
    if asks or any(ENCODERS[name].is_addressed and f"model.geometry.{name}." in parts for name in gsm["encoders"]):
        parts.add("model.address.")
    return parts


def draw_own_weights(module: nn.Module) -> None:
    """Draw the weights of a part that is not initialised as the language model's are."""
    if isinstance(module, GeometrySelectionModule | Address | AddressedEncoder | QuestionReader | QuestionSlots):
        module.reset_parameters()


def default_question_mask(
    config: Qwen2_5_VLGSMConfig, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None = None
) -> Tensor:
    """The tokens that ask, [b, s] bool, by the published model's rule: all text but special tokens.

    With labels, the answer is left out, and with it the header that opens it; without labels the header is taken for a
    part of the question. A prompt's own mask (dsr.model.chat) is the same.
    """
    special = torch.tensor(config.special_token_ids, device=input_ids.device)
    asks = ~torch.isin(input_ids, special)
    present = torch.ones_like(asks) if attention_mask is None else attention_mask.bool()
    if labels is not None:
        unlabelled = (labels == IGNORED) & present
        place = torch.arange(labels.shape[1], device=labels.device)
        last = torch.where(unlabelled, place, -1).amax(dim=1, keepdim=True)
        asks &= unlabelled & (place <= last - HEADER_TOKENS)
    return asks & present


register_names(
    Qwen2_5_VLGSMForConditionalGeneration, Qwen2_5_VLGSMForConditionalGeneration._checkpoint_conversion_mapping
)
AutoConfig.register(Qwen2_5_VLGSMConfig.model_type, Qwen2_5_VLGSMConfig)
AutoModelForImageTextToText.register(Qwen2_5_VLGSMConfig, Qwen2_5_VLGSMForConditionalGeneration)
