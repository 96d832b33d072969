//! Events and the rules that decide about them: formats, canonical JSON, hashes, signatures, redaction, authorization. Pure: no I/O.
