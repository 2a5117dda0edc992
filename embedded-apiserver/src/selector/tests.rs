//! Tests of selectors: the real server's wordings, row by row.
