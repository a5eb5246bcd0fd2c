"""Dynamic spatial reasoning for vision-language models: one DVC pipeline from raw clips to metrics."""
