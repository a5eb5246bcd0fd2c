"""What one run may spend on a language model: requests, tokens, money."""

import threading

from dsr.console import StageError
from dsr.params import LanguageModel

_MILLION = 1_000_000


class BudgetError(StageError):
    """A budget that is used up: nothing went wrong, and the same command goes on."""


class Budget:
    """Requests, tokens and money spent so far; threads share it.

    Requests are counted before they are made, so that never one too many is. Tokens and money are known after an
    answer: the requests that are under way when they are used up are still answered, kept and paid for.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.requests = self.tokens_in = self.tokens_out = 0
        self._lock = threading.Lock()

    @property
    def cost(self) -> float:
        """Money spent, in the currency of the prices."""
        return (self.tokens_in * self.model.price_in + self.tokens_out * self.model.price_out) / _MILLION

    def take(self) -> None:
        """Count a request that is about to be made.

        Raises:
            BudgetError: it may not be made.
        """
        limits = (
            ("max_requests", self.model.max_requests, self.requests, "requests"),
            ("max_total_tokens", self.model.max_total_tokens, self.tokens_in + self.tokens_out, "tokens"),
            ("max_cost", self.model.max_cost, self.cost, "spent"),
        )
        with self._lock:
            for name, limit, spent, unit in limits:
                if limit is not None and spent >= limit:
                    raise BudgetError(f"curation.llm.{name} is used up: {spent:,.6g} of {limit:,.6g} {unit}")
            self.requests += 1

    def spend(self, tokens_in: int, tokens_out: int) -> None:
        """Count the tokens of an answer."""
        with self._lock:
            self.tokens_in += tokens_in
            self.tokens_out += tokens_out
