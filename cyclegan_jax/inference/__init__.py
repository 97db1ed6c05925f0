"""Trained generators at work: `Translator`, the translate script, export."""

from cyclegan_jax.inference.translator import Translator

__all__ = ['Translator']
