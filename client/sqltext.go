package client

import "strings"

// reads reports whether a single statement can only read: it begins with SELECT,
// VALUES or EXPLAIN. The node is told so and refuses it otherwise, so a wrong
// answer here cannot double an effect.
func reads(sql string) bool {
	sql = skipBlank(sql)
	n := 0
	for n < len(sql) && (sql[n]|0x20 >= 'a' && sql[n]|0x20 <= 'z') {
		n++
	}
	switch n {
	case 6:
		return strings.EqualFold(sql[:6], "select") || strings.EqualFold(sql[:6], "values")
	case 7:
		return strings.EqualFold(sql[:7], "explain")
	}
	return false
}

// commits reports whether a single statement of a transaction may end it with its
// effects: it begins with COMMIT, END or RELEASE.
func commits(sql string) bool {
	sql = skipBlank(sql)
	for _, word := range []string{"commit", "end", "release"} {
		if len(sql) >= len(word) && strings.EqualFold(sql[:len(word)], word) {
			return true
		}
	}
	return false
}

// Several reports whether sql holds more than one statement. Inside a CREATE
// TRIGGER it sees several where SQLite sees one; a script runs either.
func Several(sql string) bool {
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case c == ';':
			return skipBlank(strings.TrimLeft(sql[i:], "; \t\r\n\f")) != ""
		case c == '\'' || c == '"' || c == '`':
			end := strings.IndexByte(sql[i+1:], c)
			if end < 0 {
				return false
			}
			i += end + 2 // a doubled quote reads as two strings side by side
		case c == '[':
			end := strings.IndexByte(sql[i:], ']')
			if end < 0 {
				return false
			}
			i += end + 1
		case strings.HasPrefix(sql[i:], "--") || strings.HasPrefix(sql[i:], "/*"):
			i = len(sql) - len(skipComment(sql[i:]))
		default:
			i++
		}
	}
	return false
}

// skipBlank skips white space, semicolons that end nothing, and comments.
func skipBlank(sql string) string {
	for {
		sql = strings.TrimLeft(sql, "; \t\r\n\f\ufeff")
		if !strings.HasPrefix(sql, "--") && !strings.HasPrefix(sql, "/*") {
			return sql
		}
		sql = skipComment(sql)
	}
}

func skipComment(sql string) string {
	end := "\n"
	if sql[0] == '/' {
		end = "*/"
	}
	_, rest, _ := strings.Cut(sql[2:], end)
	return rest
}
