"""What a scorecard says, as typed values: evals writes it, the bot shows it. `Scorecard.body` is its JSON.

Shares and metric values are 0..1; the reader decides whether to print percent. Reasons and caveats are codes with
values, so that they can be said in any language.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from serving.records import CopydeskError

FORMAT = 1
GRADES_NEEDED = 10  # texts of the candidate, half a sheet: fewer grades do not count against the checks
LABELS_NEEDED, KAPPA_NEEDED = 100, 0.6  # before a judge is called calibrated


class Verdict(StrEnum):
    PASS = "pass"
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"


class Reason(StrEnum):
    """Why the verdict is what it is; in brackets what `Card.reason_values` holds."""

    MEETS_BAR = "meets_bar"  # pass (bar, low, high, n)
    TOO_FEW = "too_few"  # inconclusive: the interval holds the bar (bar, low, high, n)
    BELOW_BAR = "below_bar"  # fail: the whole interval lies below the bar (bar, low, high, n)
    WORSE_THAN_LIVE = "worse_than_live"  # fail (gained, lost, p): briefs that got excellent, or no longer are
    FORBIDDEN_CLAIM = "forbidden_claim"  # fail (count, total, and of the first its claim, item and product)
    LEAK = "leak"  # fail (count, item): briefs of the suite that the round trained on, and the first
    LESS_STABLE = "less_stable"  # inconclusive: fewer briefs come out well every time (repeats, low, high)
    PEOPLE_BELOW_BAR = "people_below_bar"  # inconclusive: the checks pass it, people do not (bar, low, high, n)
    PEOPLE_PREFER_LIVE = "people_prefer_live"  # inconclusive: the checks pass it, it loses blind (wins, losses, p)


class Caveat(StrEnum):
    """What a reader should know before trusting a figure."""

    SMALL_SAMPLE = "small_sample"  # fewer than 30 briefs: only large differences show
    CEILING_ONE_FEWER = "ceiling_one_fewer"  # the human ceiling is scored against one reference fewer than the model
    BLEU_BAND = "bleu_band"  # 0.4-0.6 is advice from translation; for copy compare with the human ceiling
    MEMORISED = "memorised"  # at least one sample repeats 13 words (or Han characters) of a training output
    CUT_OFF = "cut_off"  # at least one sample reached max_tokens
    EXTENDED = "extended"  # extended after a look at its figures: a 95 % interval then misses more than 5 % of the time


@dataclass(frozen=True)
class Rate:
    """Successes of a total, with a 95 % Wilson interval."""

    successes: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.successes / self.total if self.total else 0.0


@dataclass(frozen=True)
class Estimate:
    """A value with a 95 % bootstrap interval, clustered by brief."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Candidate minus live on the same briefs, with a 95 % interval: Tango's for rates, else from a paired bootstrap.

    Attributes:
        p: of the exact McNemar test for rates, of the paired bootstrap for BLEU.
        gained: briefs that only the candidate does; None where briefs are not counted.
        lost: briefs that only the live version does.
    """

    value: float
    low: float
    high: float
    p: float
    gained: int | None = None
    lost: int | None = None


@dataclass(frozen=True)
class Metric:
    """One text metric.

    Attributes:
        name: "bleu", "rouge1", "rouge2", "rougeL", "chrf", "distinct1", "distinct2" or "self_bleu".
        value: 0..1.
        ceiling: the same metric of one human reference against the others; None where that has no meaning.
        signature: how it was computed, in sacrebleu's form.
    """

    name: str
    value: float
    ceiling: float | None
    signature: str


@dataclass(frozen=True)
class WorstRepeat:
    """Of one brief's samples the one that missed most, of equally bad ones the first.

    Attributes:
        repeat: the sample's, from 0.
        reason: the first that it missed, in the language of its brief; "" where it missed nothing.
    """

    repeat: int
    grade: str
    reason: str


@dataclass(frozen=True)
class BriefStability:
    """One brief asked several times.

    Attributes:
        product: its name, or the instruction where the brief has no product.
        met: samples that meet the brief: every primary requirement, so graded excellent or acceptable.
        stable: all of them met.
        chrf_mean: mean similarity of two samples, 0..1.
        chrf_min: the least similar two.
        length_variation: standard deviation of the lengths over their mean.
        too_similar: the samples are nearly one text.
        worst: None on a card of an earlier release.
    """

    item_id: str
    product: str
    met: int
    repeats: int
    stable: bool
    chrf_mean: float
    chrf_min: float
    length_variation: float
    too_similar: bool
    worst: WorstRepeat | None = None


@dataclass(frozen=True)
class Style:
    """How much the texts of one category sound alike.

    Attributes:
        texts: one a brief.
        consistency: mean pairwise cosine of their small words and punctuation, 0..1.
        ceiling: the same of what people wrote for these briefs.
    """

    category: str
    texts: int
    consistency: float
    ceiling: float


@dataclass(frozen=True)
class Memorised:
    """Samples that repeat 13 words (or Han characters) in a row of a training output.

    Attributes:
        count: of `total` samples.
        longest: the longest run, in words or Han characters.
        item_id: of the sample that holds it.
        words: the run itself.
    """

    count: int
    total: int
    longest: int
    item_id: str
    words: str


@dataclass(frozen=True)
class WorstSample:
    """A text that failed worst, and why in a copywriter's words, in the language of its brief."""

    item_id: str
    part: str
    product: str
    text: str
    grade: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """What one version did on the suite.

    Attributes:
        digest: of the adapter; "" for the base model.
        grades: how many of the following-part samples are "excellent", "acceptable", "fail".
        excellent: share of excellent samples.
        acceptable: share of excellent or acceptable samples.
        requirements: per kind ("product", "selling_points", "length", …) how often it was met where it was asked.
        metrics: in the order to show.
        pass_k: pass^1 … pass^n of the stability part; the last is "all repeats meet the brief".
        briefs: the stability part, brief by brief.
        mean_length: in words, or Han characters for Chinese.
        forbidden_claims: samples with a forbidden claim.
        samples: all samples, both parts.
        tokens: generated.
        seconds: wall clock of generating; 0 where everything was stored already.
        loose: share of samples that are excellent once asterisks, the first line or the last line are taken off.
        styles: by category, those with enough texts.
    """

    version: str
    digest: str
    grades: dict[str, int]
    excellent: Rate
    acceptable: Rate
    requirements: dict[str, Rate]
    metrics: tuple[Metric, ...]
    pass_k: tuple[Estimate, ...]
    briefs: tuple[BriefStability, ...]
    mean_length: float
    forbidden_claims: int
    samples: int
    tokens: int
    seconds: float
    loose: Rate | None = None
    styles: tuple[Style, ...] = ()

    @property
    def stability(self) -> Estimate | None:
        """The share of briefs that every answer meets; None where no brief was asked several times."""
        return self.pass_k[-1] if self.briefs else None

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two graders on the same texts; None where it is not defined."""

    kappa: float | None
    labels: int


@dataclass(frozen=True)
class Duel:
    """The blind comparison of candidate and live, in briefs; of several voters the majority decides a brief.

    Attributes:
        p: of the exact sign test over the briefs that were decided.
        needed: wins of those that chance does not explain; None when they are too few.
        closed_early: a lead closed a comparison before all its briefs were voted on.
    """

    wins: int
    ties: int
    losses: int
    p: float
    needed: int | None
    voters: int
    closed_early: bool


@dataclass(frozen=True)
class People:
    """What people said, blind. A text counts once: the middle of its grades, of two the worse.

    Attributes:
        candidate: how many of the graded texts of the candidate are excellent; `live` likewise.
        checks: how far people's grades agree with those of the checks.
        duel: None until somebody has voted on everything.
        voting: people who have begun to compare and are not done.
    """

    graders: int
    candidate: Rate
    live: Rate
    checks: Agreement
    duel: Duel | None
    voting: int


@dataclass(frozen=True)
class Judged:
    """What a judging model said.

    Attributes:
        candidate: how many of the judged texts of the candidate got only yes; `live` likewise.
        wins, ties, losses: of the candidate against live, brief by brief.
        unscored: questions without a usable answer.
        people: how far the judge agrees with people, over all texts that both have seen.
        votes: how far it chooses as people do between a candidate and what that is compared with, over all briefs that
            both have compared; of several voters the majority decides a brief, and a tie is a class of its own.
    """

    judge: str
    candidate: Rate
    live: Rate
    wins: int
    ties: int
    losses: int
    unscored: int
    people: Agreement
    votes: Agreement = Agreement(None, 0)

    @property
    def calibrated(self) -> bool:
        return self.people.labels >= LABELS_NEEDED and (self.people.kappa or 0.0) >= KAPPA_NEEDED


@dataclass(frozen=True)
class Card:
    """A whole scorecard.

    Attributes:
        reason: why the verdict is what it is; `reason_values` fills its sentence.
        bar: the share of excellent samples that the gate asks for.
        suite: its name.
        language: of the suite.
        items: briefs of the following part; `briefs` × `repeats` is the stability part.
        live: the baseline's arm; None when the baseline itself was scored.
        excellent_difference: None like `live`; so are the next two.
        worst: of the candidate, the worst first.
        chart: path of the PNG relative to COPYDESK_HOME; "" without one. The HTML file stands beside it.
        memorised: None where no sample repeats a training output.
        looks: how often a verdict was given: 1, and 1 more for each time that further briefs were added.
        people: what people and a judge said by now; never stored with the card, see `seen_with`. So is `judged`.
    """

    version: str
    digest: str
    base_model: str
    baseline: str
    verdict: Verdict
    reason: Reason
    reason_values: dict[str, float | int | str]
    bar: float
    suite: str
    suite_digest: str
    suite_size: int
    seed: int
    items: int
    item_ids: tuple[str, ...]
    repeats: int
    sampling: dict[str, float | int]
    candidate: Arm
    live: Arm | None
    excellent_difference: Difference | None
    bleu_difference: Difference | None
    stability_difference: Estimate | None
    worst: tuple[WorstSample, ...]
    caveats: tuple[Caveat, ...]
    chart: str = ""
    format: int = FORMAT
    language: str = "en"
    memorised: Memorised | None = None
    looks: int = 1
    people: People | None = None
    judged: Judged | None = None

    def seen_with(self, people: People | None, judged: Judged | None) -> Card:
        """The card as it is shown. People take a pass back: by grades below the bar, or by votes for the baseline."""
        card = replace(self, people=people, judged=judged)
        if people is None or self.verdict is not Verdict.PASS:
            return card
        found, duel = people.candidate, people.duel
        reason, values = self.reason, self.reason_values
        if found.total >= GRADES_NEEDED and found.high < self.bar:
            reason = Reason.PEOPLE_BELOW_BAR
            values = {"bar": self.bar, "low": found.low, "high": found.high, "n": found.total}
        elif duel and duel.needed is not None and duel.losses >= duel.needed:
            reason = Reason.PEOPLE_PREFER_LIVE
            values = {"wins": duel.wins, "losses": duel.losses, "p": duel.p}
        else:
            return card
        return replace(card, verdict=Verdict.INCONCLUSIVE, reason=reason, reason_values=values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Card:
        """A caveat that is no longer made is left out. Raises CopydeskError when the body is of another form."""
        known = [caveat for caveat in body.get("caveats", ()) if caveat in frozenset(Caveat)]
        try:
            return _CARDS.validate_python({**body, "caveats": known})
        except ValidationError as error:
            raise CopydeskError(
                f"This scorecard is of another form ({error.error_count()} fields differ); score the version again: "
                "copydesk eval run"
            ) from error


_CARDS = TypeAdapter(Card)
