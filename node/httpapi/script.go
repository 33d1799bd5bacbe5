package httpapi

import "bytes"

// A SQL text is cut into statements the way SQLite's own shell does it: at
// semicolons, but not at those in strings, quoted names, comments, or the body
// of CREATE TRIGGER, which ends at the word END between two semicolons. Nothing
// depends on the cut for safety: every piece is still given to SQLite as one
// statement, which refuses what is not one.

// splitter walks over the statements of a SQL text.
type splitter struct {
	text []byte
	pos  int
}

// next finds the next statement, text[start:end] without its semicolon. What is
// only space and comments is passed over.
func (s *splitter) next() (start, end int, ok bool) {
	for s.pos < len(s.text) {
		start = s.pos
		var empty bool
		if end, empty = s.cut(); !empty {
			return start, end, true
		}
	}
	return 0, 0, false
}

// Phases of CREATE [TEMP|TEMPORARY] TRIGGER … ; END ;
const (
	atStart = iota // nothing seen yet
	create         // CREATE
	plain          // anything else
	trigger        // inside of a trigger
	semi           // at a semicolon inside of a trigger
	end            // at END after such a semicolon
)

// cut passes one statement and tells where it ends, and whether it was empty.
func (s *splitter) cut() (stop int, empty bool) {
	sql, from, phase := s.text[s.pos:], s.pos, atStart
	empty = true
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			i++
			continue
		case c == '-' && i+1 < len(sql) && sql[i+1] == '-':
			i = after(sql, i+2, "\n")
			continue
		case c == '/' && i+1 < len(sql) && sql[i+1] == '*':
			i = after(sql, i+2, "*/")
			continue
		case c == ';':
			if phase < trigger || phase == end {
				s.pos = from + i + 1
				return from + i, empty
			}
			phase = semi
			i++
			continue
		case c == '\'' || c == '"' || c == '`':
			i = after(sql, i+1, string(c)) // a doubled quote begins a new string, which is as good
		case c == '[':
			i = after(sql, i+1, "]")
		case wordByte(c):
			word := i
			for i < len(sql) && wordByte(sql[i]) {
				i++
			}
			phase, empty = step(phase, sql[word:i]), false
			continue
		default:
			i++
		}
		phase, empty = other(phase), false
	}
	s.pos = len(s.text)
	return s.pos, empty
}

// step is the phase after a word.
func step(phase int, word []byte) int {
	switch {
	case phase == atStart && bytes.EqualFold(word, []byte("CREATE")):
		return create
	case phase == atStart && bytes.EqualFold(word, []byte("EXPLAIN")):
		return atStart
	case phase == create && (bytes.EqualFold(word, []byte("TEMP")) || bytes.EqualFold(word, []byte("TEMPORARY"))):
		return create
	case phase == create && bytes.EqualFold(word, []byte("TRIGGER")):
		return trigger
	case phase == semi && bytes.EqualFold(word, []byte("END")):
		return end
	}
	return other(phase)
}

// other is the phase after anything that is neither space nor a word that
// matters.
func other(phase int) int {
	if phase >= trigger {
		return trigger
	}
	return plain
}

// after is the index behind the next mark from i on, or the end.
func after(sql []byte, i int, mark string) int {
	n := bytes.Index(sql[i:], []byte(mark))
	if n < 0 {
		return len(sql)
	}
	return i + n + len(mark)
}

func wordByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// beginsTransaction reports whether a statement opens a transaction of its own.
func beginsTransaction(stmt []byte) bool {
	for i := 0; i < len(stmt); {
		switch c := stmt[i]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			i++
		case c == '-' && i+1 < len(stmt) && stmt[i+1] == '-':
			i = after(stmt, i+2, "\n")
		case c == '/' && i+1 < len(stmt) && stmt[i+1] == '*':
			i = after(stmt, i+2, "*/")
		default:
			from := i
			for i < len(stmt) && wordByte(stmt[i]) {
				i++
			}
			word := stmt[from:i]
			return bytes.EqualFold(word, []byte("BEGIN")) || bytes.EqualFold(word, []byte("SAVEPOINT"))
		}
	}
	return false
}
