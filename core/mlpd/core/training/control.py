"""What a run does about its validation scores: keep the best, stop, or lower the rate."""

from dataclasses import dataclass, replace

from mlpd.core.spec.training import EarlyStoppingSpec, PlateauSpec


@dataclass(frozen=True)
class Monitor:
    """What validations have come to: the best so far and how many since; for stopping, and for the plateau.

    ``rate_share`` is what the plateau has left of the learning rate.
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
        """Return the monitor after one more validation."""
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
        """Whether it is time to stop."""
        return stopping is not None and self.stale_count >= stopping.patience
