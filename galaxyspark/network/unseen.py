"""Whether weights to start from have learned from galaxies that are to judge the training."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SplitRule
from galaxyspark.network.card import CARD, load_card
from galaxyspark.network.networks import weights_file


def require_unseen_galaxies(weights: str, data: dict[str, Any]) -> None:
    """Refuse weights that may have learned from, or been chosen by, galaxies which are to judge them here.

    What they were last trained on stands in the card beside them. Weights whose card names no splits or other labels
    pass, and so do those without a card.

    Args:
        weights: As ``--weights`` has it.
        data: The manifest of ``augment`` of the views to train on.

    Raises:
        UserError: It names the splits of both.
    """
    file = weights_file(weights)
    if not file.is_file() or not (file.parent / CARD).is_file():
        return
    learned = load_card(file.parent).training
    if not learned.get("split") or not data.get("split") or learned["labels"] != data["inputs"]["labels"]:
        return
    theirs, ours = (TypeAdapter(SplitRule).validate_python(of["split"]) for of in (learned, data))
    # Cards of earlier versions do not name the rule.
    same_classes = learned.get("label_rule", data["label_rule"]) == data["label_rule"]
    if theirs == ours and same_classes:
        return
    # A galaxy's class may be another by their label rule: no class there may reach further than any does here.
    theirs_ends = map(max, zip(*map(theirs.ends_of, learned["galaxies_by_class"]), strict=True))
    ours_ends = map(min, zip(*map(ours.ends_of, data["classes"]), strict=True))
    if theirs.seed != ours.seed or any(their > our for their, our in zip(theirs_ends, ours_ends, strict=True)):
        flags = [_flags(theirs), _flags(ours)]
        of_both = f"Their views have {flags[0]}, these {flags[1]}"
        if flags[0] == flags[1]:
            of_both = f"Both views have {flags[0]}, but not the same galaxies in each class"
        if not same_classes:
            of_both += f" (theirs are by --label-rule {learned['label_rule']}, these by {data['label_rule']})"
        raise UserError(
            f"--weights {weights}: they may have been trained on, or chosen by, galaxies that are for validation or "
            f"test here. {of_both}. Augment this run as theirs was, or start from other weights."
        )


def _flags(rule: SplitRule) -> str:
    shares = " ".join(f"{share:g}" for share in rule.fractions)
    return f"--split-seed {rule.seed} --split-fractions {shares} --{'' if rule.ends else 'no-'}stratify"
