"""What a run does about its validation scores: keep the best, stop, or lower the rate."""

from dataclasses import dataclass, replace

from mlpd.core.spec.training import EarlyStoppingSpec, PlateauSpec


@dataclass(frozen=True)
class Monitor:
    """What validations have shown so far; fields of a rule that a run does not have keep their defaults.

    For early stopping: the best score (an accuracy, or minus a loss), its epoch, and how many validations came since.
    For the plateau: the lowest loss, how many validations came since or since the rate was lowered, and the share of
    the learning rate that is left.
    """

    best_score: float | None = None
    best_epoch: int = 0
    stale_count: int = 0
    lowest_loss: float | None = None
    plateau_count: int = 0
    rate_share: float = 1.0

    def after(
        self,
        epoch: int,
        loss: float,
        accuracy: float | None,
        stopping: EarlyStoppingSpec | None,
        plateau: PlateauSpec | None,
    ) -> "Monitor":
        """Return the monitor after a validation in ``epoch``; without ``accuracy``, stopping looks at the loss."""
        later = self
        if stopping:
            score = -loss if stopping.metric == "loss" or accuracy is None else accuracy
            better = later.best_score is None or score > later.best_score + stopping.minimum_delta
            if better:
                later = replace(later, best_score=score, best_epoch=epoch, stale_count=0)
            else:
                later = replace(later, stale_count=later.stale_count + 1)
        if plateau:
            if later.lowest_loss is None or loss < later.lowest_loss:
                later = replace(later, lowest_loss=loss, plateau_count=0)
            elif later.plateau_count + 1 < plateau.patience:
                later = replace(later, plateau_count=later.plateau_count + 1)
            else:
                share = max(later.rate_share * plateau.factor, plateau.minimum_share)
                later = replace(later, plateau_count=0, rate_share=share)
        return later

    def stops(self, stopping: EarlyStoppingSpec | None) -> bool:
        """Return whether ``stopping.patience`` validations came since the best; False without ``stopping``."""
        return stopping is not None and self.stale_count >= stopping.patience
