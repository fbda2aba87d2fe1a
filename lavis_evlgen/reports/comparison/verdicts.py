"""Whether what is claimed of a comparison holds, and by how much, as sentences made from the figures."""

from __future__ import annotations

from typing import Any

from lavis_evlgen.reports.comparison import words
from lavis_evlgen.reports.comparison.file import Claim, Comparison
from lavis_evlgen.reports.comparison.times import lower_is_better

Figures = dict[str, Any]
PLATEAU = 0.9  # of an arm's time: one that had its final quality before is said to have had it


def verdicts(comparison: Comparison, found: Figures) -> list[Figures]:
    """One entry a claim.

    Returns:
        ``arm``, ``of``, ``metric``, ``share_of_time`` and ``source`` as claimed; ``holds``, None where nothing can be
        said yet; ``share``, the measured mean share of time; ``sentence``. A claim on time holds when every compared
        seed reached the quality and the mean share is not above the claimed one; one on the final value when the mean
        is better.
    """
    return [_verdict(comparison, found, claim) for claim in comparison.claims or ()]


def pair(found: Figures, arm: str, of: str, metric: str) -> Figures | None:
    """The entry of ``to_quality`` of two arms and a metric."""
    wanted = (arm, of, metric)
    return next((each for each in found["to_quality"] if (each["arm"], each["of"], each["metric"]) == wanted), None)


def headlines(comparison: Comparison, found: Figures) -> list[str]:
    """The verdicts; without claims, how long each arm takes to the reference's quality."""
    if found["verdicts"]:
        return [each["sentence"] for each in found["verdicts"]]
    name = found["reference"]
    lines = []
    for each in found["to_quality"]:
        if each["of"] == name != each["arm"] and each["compared"]:
            metric, of = words.metric_name(each["metric"]), comparison.title(name)
            share = words.share_of_time(each)
            taken = f"{share} of that arm's training time" if each["reached"] else share
            lines.append(f"{comparison.title(each['arm'])} to the final {metric} of {of}: {taken}.")
    return lines


def _verdict(comparison: Comparison, found: Figures, claim: Claim) -> Figures:
    absent = [name for name in (claim.arm, claim.of) if comparison.arm(name) is None]
    share: float | None = None
    if absent:
        holds, text = None, f"cannot be judged, since {' and '.join(absent)} took no part"
    elif claim.share_of_time is None:
        holds, text = _on_final_value(comparison, found, claim)
    else:
        holds, share, text = _on_time(comparison, found, claim, claim.share_of_time)
    subject = f"{comparison.title(claim.arm)} and {comparison.title(claim.of)}: " if holds is None else ""
    return {**vars(claim), "holds": holds, "share": share, "sentence": f"{subject}{text}."}


def _on_time(
    comparison: Comparison, found: Figures, claim: Claim, claimed: float
) -> tuple[bool | None, float | None, str]:
    """Whether it holds, the mean share of time, and the sentence."""
    metric, of = words.metric_name(claim.metric), comparison.title(claim.of)
    said = _claimed(f"at most {words.percent(claimed)}", claim)
    each = pair(found, claim.arm, claim.of, claim.metric)
    if each is None or not each["compared"]:
        return None, None, f"cannot be judged on {metric}, since no seed of both is measured to its end {said}"
    if each["reached"] and not each["share"]:
        return None, None, f"cannot be judged on {metric}, since step times are not known {said}"
    subject = f"{comparison.title(claim.arm)} reaches the final {metric} of {of}"
    over = words.seeds(each["compared"]) + _so_far(found, claim)
    if not each["reached"]:
        return False, None, f"{subject} in none of {over}, {words.best_missed(each)} {said}: does not hold"
    share = each["share"]["mean"]
    late = any(seed.get("at_most") for seed in each["seeds"])  # reached by the first measurement, perhaps before
    taken = (
        f"in {'at most ' if late else ''}{words.with_range(each['share'], 100, 1, ' %')} of that arm's training time"
    )
    if each["reached"] < each["compared"]:
        missed = f"in {each['reached']} of {over} only, there {taken}, else {words.best_missed(each)}"
        return False, share, f"{subject} {missed} {said}: does not hold"
    points = 100 * (claimed - share)
    verdict = f"holds, with {points:.1f} points to spare" if points >= 0 else f"does not hold, by {-points:.1f} points"
    verdict += " or less, since it was measured no earlier" if late and points < 0 else ""
    return points >= 0, share, f"{subject} {taken}, {over} {said}: {verdict}{_plateau(comparison, found, claim)}"


def _plateau(comparison: Comparison, found: Figures, claim: Claim) -> str:
    """Said of an arm that had its own final quality long before its end, so that shares of its time flatter others."""
    own = pair(found, claim.of, claim.of, claim.metric)
    share = own and own["share"]
    if not share or share["mean"] > PLATEAU:
        return ""
    return f"; {comparison.title(claim.of)} itself first had it at {100 * share['mean']:.0f} % of its time"


def _on_final_value(comparison: Comparison, found: Figures, claim: Claim) -> tuple[bool | None, str]:
    """The claim that an arm ends with a better value, on the first split that has it."""
    metric = words.metric_name(claim.metric)
    finals = [found["arms"][name]["final"] for name in (claim.arm, claim.of)]
    keys = [key for key in finals[0] if key.rpartition(".")[2] == claim.metric and key in finals[1]]
    word = "lower" if lower_is_better(claim.metric) else "higher"
    if not keys:
        return None, f"cannot be judged on the final {metric}, which is not measured {_claimed(word, claim)}"
    ours, theirs = (final[keys[0]] for final in finals)
    better = ours["mean"] < theirs["mean"] if word == "lower" else ours["mean"] > theirs["mean"]
    split = keys[0].rpartition(".")[0].replace("_", " ")
    values = [words.with_deviation(claim.metric, each) for each in (ours, theirs)]
    seeds = words.seeds(ours["n"]) if ours["n"] == theirs["n"] else f"{ours['n']} and {words.seeds(theirs['n'])}"
    return better, (
        f"The final {metric}{split and f' on {split}'} of {comparison.title(claim.arm)} is {values[0]}, that of "
        f"{comparison.title(claim.of)} {values[1]}, {seeds}{_so_far(found, claim)} {_claimed(word, claim)}: "
        f"{'holds' if better else 'does not hold'}"
    )


def _claimed(what: str, claim: Claim) -> str:
    return f"(claimed: {what}; {claim.source})" if claim.source else f"(claimed: {what})"


def _so_far(found: Figures, claim: Claim) -> str:
    return " so far" if any(found["arms"][name]["unfinished"] for name in (claim.arm, claim.of)) else ""
