package hrana

import "bytes"

// verb is what a statement does to the transaction, as far as the protocol has
// to know.
type verb uint8

const (
	verbOther verb = iota
	verbBegin
	verbCommit // COMMIT or END
	verbRollback
	verbBeginReadOnly // libSQL's BEGIN TRANSACTION READONLY, which SQLite has not
)

var begin = []byte("BEGIN")

// transactionVerb looks at the first words of a statement. rest is what follows
// READONLY, for scripts that begin with it.
func transactionVerb(sql []byte) (v verb, rest []byte) {
	word, rest := nextWord(sql)
	switch {
	case equalFold(word, "BEGIN"):
		word, after := nextWord(rest)
		if equalFold(word, "TRANSACTION") {
			word, after = nextWord(after)
		}
		if equalFold(word, "READONLY") {
			return verbBeginReadOnly, after
		}
		return verbBegin, rest
	case equalFold(word, "COMMIT"), equalFold(word, "END"):
		return verbCommit, rest
	case equalFold(word, "ROLLBACK"):
		// ROLLBACK TO takes back to a savepoint and stays in the transaction.
		word, after := nextWord(rest)
		if equalFold(word, "TRANSACTION") {
			word, _ = nextWord(after)
		}
		if equalFold(word, "TO") {
			return verbOther, rest
		}
		return verbRollback, rest
	}
	return verbOther, rest
}

// nextWord skips space and comments and takes the letters that follow.
func nextWord(sql []byte) (word, rest []byte) {
	for {
		sql = bytes.TrimLeft(sql, " \t\n\v\f\r")
		var end []byte
		switch {
		case bytes.HasPrefix(sql, []byte("--")):
			end = []byte("\n")
		case bytes.HasPrefix(sql, []byte("/*")):
			end = []byte("*/")
		default:
			n := 0
			for n < len(sql) && (sql[n]|0x20 >= 'a' && sql[n]|0x20 <= 'z' || sql[n] == '_') {
				n++
			}
			return sql[:n], sql[n:]
		}
		i := bytes.Index(sql[2:], end)
		if i < 0 {
			return nil, nil
		}
		sql = sql[2+i+len(end):]
	}
}

func equalFold(word []byte, upper string) bool {
	if len(word) != len(upper) {
		return false
	}
	for i := range word {
		if word[i]&^0x20 != upper[i] {
			return false
		}
	}
	return true
}
