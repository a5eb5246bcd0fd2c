"""Qwen2.5-VL with a Geometry Selection Module."""

from dsr.model.presets import load_model

__all__ = ["load_model"]
