"""Figures from run directories alone: table, summary, verdict, report."""
