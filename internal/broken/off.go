//go:build !facetd_broken

package broken

// Built says whether rules can be broken in this binary.
const Built = false

// Is reports whether this process is to break a rule that way.
func Is(Switch) bool { return false }

// Warning says what is broken in this process, "" for nothing.
func Warning() string { return "" }
