"""The sections of the table, in its order: a section is one file and one line below."""

from experiments.audit.evidence.section import Section
from experiments.audit.sections import (
    blind,
    controls,
    data,
    mechanism,
    pairs,
    replay_shift,
    shift,
    vectors,
)
from experiments.audit.sections.detecting import (
    by_change,
    ceiling,
    competitors,
    detection,
    nulls,
    onset,
    recall,
    units,
)

SECTIONS: tuple[Section, ...] = (
    vectors.SECTION,
    replay_shift.SECTION,
    data.SECTION,
    shift.SECTION,
    controls.SECTION,
    shift.CORRELATIONS,
    mechanism.SECTION,
    blind.SECTION,
    detection.SECTION,
    by_change.SECTION,
    competitors.SECTION,
    nulls.SECTION,
    ceiling.SECTION,
    pairs.SECTION,
    recall.SECTION,
    onset.SECTION,
    units.SECTION,
)
