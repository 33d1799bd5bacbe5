package quorum

// Recoverable reports whether a facet whose active set has n members can be recovered
// by the rules (R16, R19), given what the copies of different stores of that set say of
// themselves. Where it cannot, nothing is to be had but what one copy holds, and only a
// person may decide to go on with that (R25).
func Recoverable(n int, copies []Promise) bool {
	if len(copies) > n || n > MaxMembers {
		return false // of another set
	}
	s := Session{activeN: n, n: len(copies)}
	for i, p := range copies {
		s.slots[i] = member{role: roleActive, promised: true, promise: p}
	}
	_, ok := s.choose()
	return ok
}
