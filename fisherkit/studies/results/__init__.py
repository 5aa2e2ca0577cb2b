"""What a study writes: its runs collected, summed up, drawn."""

from fisherkit.studies.results.arm_summary import ArmSummary, summarise
from fisherkit.studies.results.collect import analysed_arm, analysed_arms, collect
from fisherkit.studies.results.ending import EndRule, end_rule
from fisherkit.studies.results.table import csv_bytes
from fisherkit.studies.results.text import text_bytes
from fisherkit.studies.results.write import Results, write_results

__all__ = [
    "ArmSummary",
    "EndRule",
    "Results",
    "analysed_arm",
    "analysed_arms",
    "collect",
    "csv_bytes",
    "end_rule",
    "summarise",
    "text_bytes",
    "write_results",
]
