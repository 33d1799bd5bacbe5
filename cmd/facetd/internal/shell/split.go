package shell

import "strings"

// splitter cuts text that arrives line by line into statements. A statement ends
// with a semicolon outside quotes, comments and the body of a CREATE TRIGGER; that
// body ends with END between two semicolons.
//
// Every line is looked at once, however long the statement grows.
type splitter struct {
	buf   []byte // not given out yet
	pos   int    // looked at up to here
	line  int    // number of the line that was added last, from 1
	begin int    // line on which the statement under way begins

	quote   byte // ' " ` ] or * for a block comment; 0 outside
	empty   bool // nothing but space and comments so far
	words   int  // words of the statement so far
	create  bool // the words so far allow CREATE TRIGGER to follow
	trigger bool
	// In a trigger: 1 after a semicolon, 2 after END that follows one.
	closing int
}

func newSplitter() *splitter { return &splitter{empty: true} }

// add takes the next line, without its line break.
func (s *splitter) add(line string) {
	s.line++
	if s.empty {
		s.begin = s.line
	}
	s.buf = append(append(s.buf, line...), '\n')
}

// next gives the next whole statement and the line it begins on.
func (s *splitter) next() (sql string, line int, ok bool) {
	for s.pos < len(s.buf) {
		if s.quote != 0 {
			s.skipQuoted()
			continue
		}
		c := s.buf[s.pos]
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f':
			s.pos++
		case c == '-' && s.follows('-'):
			for s.buf[s.pos] != '\n' {
				s.pos++
			}
		case c == '/' && s.follows('*'):
			s.quote = '*'
			s.pos += 2
		case c == ';':
			s.pos++
			if s.empty {
				s.drop() // a lone semicolon
			} else if !s.trigger || s.closing == 2 {
				sql, line = s.take()
				return sql, line, true
			} else {
				s.closing = 1
			}
		case c == '\'' || c == '"' || c == '`' || c == '[':
			s.token("")
			s.quote = c
			if c == '[' {
				s.quote = ']'
			}
			s.pos++
		case isWord(c):
			from := s.pos
			for s.pos < len(s.buf) && isWord(s.buf[s.pos]) {
				s.pos++
			}
			s.token(string(s.buf[from:s.pos]))
		default:
			s.token("")
			s.pos++
		}
	}
	return "", 0, false
}

// skipQuoted moves to the end of the quotes or the comment, if it is there.
func (s *splitter) skipQuoted() {
	for ; s.pos < len(s.buf); s.pos++ {
		c := s.buf[s.pos]
		if s.quote == '*' {
			if c == '*' && s.follows('/') {
				s.pos += 2
				s.quote = 0
				return
			}
		} else if c == s.quote {
			s.pos++ // a doubled quote opens the next string at once
			s.quote = 0
			return
		}
	}
}

func (s *splitter) follows(c byte) bool { return s.pos+1 < len(s.buf) && s.buf[s.pos+1] == c }

// token takes note of a word, or of anything else ("").
func (s *splitter) token(word string) {
	if s.empty {
		s.empty = false
		s.begin = s.line // lines of comments alone belong to the statement but do not count
		s.create = true
	}
	s.words++
	if s.trigger {
		if s.closing == 1 && strings.EqualFold(word, "end") {
			s.closing = 2
		} else {
			s.closing = 0
		}
		return
	}
	if !s.create {
		return
	}
	switch strings.ToLower(word) {
	case "explain", "query", "plan", "create", "temp", "temporary":
		// Words that may come before TRIGGER. In another order they are errors,
		// which the server tells.
	case "trigger":
		s.trigger = s.words > 1
		s.create = false
	default:
		s.create = false
	}
}

// take cuts off the statement that ends at pos.
func (s *splitter) take() (string, int) {
	sql, line := strings.Trim(string(s.buf[:s.pos]), blank), s.begin
	s.drop()
	return sql, line
}

func (s *splitter) drop() {
	s.buf = s.buf[:copy(s.buf, s.buf[s.pos:])]
	*s = splitter{buf: s.buf, line: s.line, begin: s.line, empty: true}
}

// rest gives what is left when the input ends: a statement without its semicolon.
func (s *splitter) rest() (sql string, line int, ok bool) {
	ok = !s.empty
	s.pos = len(s.buf)
	s.quote = 0
	sql, line = s.take()
	return sql, line, ok
}

// pending reports whether a statement has begun and not ended.
func (s *splitter) pending() bool { return !s.empty || s.quote != 0 }

// open names what the next line continues, for the prompt.
func (s *splitter) open() string {
	switch {
	case s.quote == '*':
		return "/*"
	case s.quote != 0:
		return string(s.quote)
	}
	return ""
}

func isWord(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// verb is the first word of a statement in lower case, and what follows it.
func verb(sql string) (word, rest string) {
	sql = skipBlank(sql)
	n := 0
	for n < len(sql) && isWord(sql[n]) {
		n++
	}
	return strings.ToLower(sql[:n]), sql[n:]
}

// blank is what SQLite skips between tokens.
const blank = " \t\r\n\f"

// skipBlank skips white space, comments and semicolons.
func skipBlank(sql string) string {
	for {
		sql = strings.TrimLeft(sql, ";"+blank)
		var end int
		switch {
		case strings.HasPrefix(sql, "--"):
			end = strings.IndexByte(sql, '\n')
		case strings.HasPrefix(sql, "/*"):
			if end = strings.Index(sql[2:], "*/"); end >= 0 {
				end += 3
			}
		default:
			return sql
		}
		if end < 0 {
			return ""
		}
		sql = sql[end+1:]
	}
}
