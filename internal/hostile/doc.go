// Package hostile is a test of what tenants and strangers may do to a node: a corpus of
// hostile inputs as tables, one file a door, each sent to a node that runs as in
// production, with tokens, limits and a victim beside the attacker. After every input the
// node must be alive and the victim unharmed, and every answer must be a clear error.
// Nobody imports it. Its tests use one node each and may run beside those of other
// packages; within the package they run one after the other.
package hostile
