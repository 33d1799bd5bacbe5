package quorum

// What a caller may look at, and doubt, between inputs.

// Pending is what was appended and is not committed: entries and their bytes. A
// session whose Room was used up is worth starting again when half of it is free.
func (s *Session) Pending() (entries, bytes int) { return s.window.n, s.window.bytes }

// Caught reports whether every member that can be reached is believed to hold the
// whole log: then nothing is left to send, and the session may rest.
func (s *Session) Caught() bool {
	for i := range s.n {
		m := &s.slots[i]
		if m.role&(roleNext|roleLearner) == 0 || m.down {
			continue
		}
		if m.progress != streaming || m.match < s.last {
			return false
		}
	}
	return true
}

// Lagging reports whether a member that can be reached is being filled, or is so far
// behind that it would have to be if the log were compacted now.
func (s *Session) Lagging() bool {
	for i := range s.n {
		m := &s.slots[i]
		if m.role&(roleNext|roleLearner) == 0 || m.down || s.barrier == 0 {
			continue
		}
		if m.progress == filling || m.match+MaxShip < s.last {
			return true
		}
	}
	return false
}

// Lacking reports whether a slot is known to lack something of what is committed,
// or cannot be asked.
func (s *Session) Lacking(slot int) bool {
	m := &s.slots[slot]
	return m.role&(roleNext|roleLearner) != 0 && (m.down || m.progress != streaming || m.match < s.committed)
}

// Doubt has the session find out where a slot's log meets its own, although
// nothing is to be sent: its member was away while entries were committed, perhaps
// by a session before this one. It costs one entry sent again, or a snapshot where
// no entry is left to ask with; the member ignores what it has (R8, R44).
func (s *Session) Doubt(slot int) {
	if s.state == Dead || s.barrier == 0 || slot == s.self || slot < 0 || slot >= s.n || s.slots[slot].role&(roleNext|roleLearner) == 0 {
		return
	}
	m := &s.slots[slot]
	if s.first <= s.last {
		s.probe(m, max(s.first, min(m.match+1, s.last)))
		return
	}
	s.unsure(m)
}

// unsure has a slot offered a snapshot because no entry is left to ask with, not
// because it is known to lack one. As soon as there is an entry it is asked with
// that: a snapshot of a session that works is only there once all it shows is
// committed, and where a majority waits for one nothing is.
func (s *Session) unsure(m *member) {
	m.match = min(m.match, s.last-1)
	m.progress, m.next, m.waiting, m.unsure = filling, s.last, false, true
}
