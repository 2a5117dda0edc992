//! Tests of schemas: the real server's wordings, row by row.
