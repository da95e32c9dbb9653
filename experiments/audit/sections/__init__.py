"""The sections of the table, in its order: a section is one file here and one line below."""

from experiments.audit.evidence.section import Section
from experiments.audit.sections import (
    blind,
    ceiling,
    competitors,
    controls,
    data,
    detection,
    mechanism,
    nulls,
    onset,
    pairs,
    recall,
    replay_shift,
    shift,
    units,
    vectors,
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
    competitors.SECTION,
    nulls.SECTION,
    ceiling.SECTION,
    pairs.SECTION,
    recall.SECTION,
    onset.SECTION,
    units.SECTION,
)
