package sqlite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestLinearFunctions compares the functions with SQLite's own on random text with
// many repetitions, well formed and not.
func TestLinearFunctions(t *testing.T) {
	own, _ := open(t, bridged)
	stock, _ := open(t, bridged)
	if err := own.UseLinearFunctions(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	pieces := []string{"a", "a", "a", "b", "aa", "ab", "é", "漢", "😀", " ", "ß", "0", "\x01"}
	text := func(n int) string {
		var b strings.Builder
		for range rng.IntN(n + 1) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		return b.String()
	}
	value := func(s string) string {
		switch rng.IntN(12) {
		case 0:
			return "NULL"
		case 1:
			return fmt.Sprintf("x'%x'", s)
		case 2:
			return fmt.Sprint(rng.IntN(2000))
		case 3:
			return fmt.Sprintf("CAST(x'%x00%x' AS TEXT)", s, s)
		case 4: // malformed
			return fmt.Sprintf("CAST(x'%x' AS TEXT)", s[min(1, len(s)):])
		}
		return fmt.Sprintf("CAST(x'%x' AS TEXT)", s)
	}
	for range 3000 {
		hay := text(60)
		needle := text(5)
		if rng.IntN(2) == 0 && len(hay) > 0 {
			i := rng.IntN(len(hay))
			needle = hay[i : i+rng.IntN(len(hay)-i+1)]
		}
		h, n, w := value(hay), value(needle), value(text(4))
		for _, q := range []string{
			fmt.Sprintf("SELECT instr(%s,%s)", h, n),
			fmt.Sprintf("SELECT typeof(replace(%s,%s,%s)), hex(replace(%[1]s,%[2]s,%[3]s))", h, n, w),
			fmt.Sprintf("SELECT typeof(trim(%s,%s)), hex(trim(%[1]s,%[2]s)), hex(ltrim(%[1]s,%[2]s)), hex(rtrim(%[1]s,%[2]s))", h, value(text(3))),
		} {
			if got, want := mustDump(t, own, q), mustDump(t, stock, q); got != want {
				t.Fatalf("%s:\ngot  %s\nwant %s", q, got, want)
			}
		}
	}
	for range 3000 {
		var hex strings.Builder
		for range rng.IntN(12) {
			hex.WriteString([...]string{"4f", "Aa", "09", "-", "é", "漢", " ", "g", "1"}[rng.IntN(9)])
		}
		q := fmt.Sprintf("SELECT typeof(unhex(%s,%s)), hex(unhex(%[1]s,%[2]s))", value(hex.String()), value("-é 漢"[rng.IntN(2):]))
		if got, want := mustDump(t, own, q), mustDump(t, stock, q); got != want {
			t.Fatalf("%s:\ngot  %s\nwant %s", q, got, want)
		}
	}
	for _, q := range []string{
		`SELECT json_patch('{"a":1,"b":{"c":2}}','{"b":{"c":null,"d":[1]},"e":"f"}')`,
		`SELECT typeof(jsonb_patch('{"a":1}','{"a":2}')), json(jsonb_patch('{"a":1}','{"a":2}'))`,
		`SELECT json_patch(NULL,'{}'), json_patch('[1]','{"a":1}'), json_extract(json_patch('{"a":{"b":1}}','{"c":2}'),'$.a')`,
		`SELECT json_array(json_patch('{}','{"a":1}'))`,
	} {
		if got, want := mustDump(t, own, q), mustDump(t, stock, q); got != want {
			t.Fatalf("%s:\ngot  %s\nwant %s", q, got, want)
		}
	}
	if _, err := dump(own, "SELECT json_patch('{','{}')"); CodeOf(err) != ERROR {
		t.Fatal(err)
	}
	if _, err := dump(own, "SELECT json_patch(printf('%.*c',100000,' '),printf('%.*c',100000,' '))"); CodeOf(err) != TOOBIG {
		t.Fatal(err)
	}
	exec(t, own, "CREATE TABLE x(a); CREATE INDEX xi ON x(trim(a,'-')); INSERT INTO x VALUES('-b-')")
	if got := mustDump(t, own, "SELECT a FROM x WHERE trim(a,'-')='b'"); !strings.Contains(got, "-b-") {
		t.Fatal(got)
	}
	own.SetLimit(LimitLength, 1000)
	if _, err := dump(own, "SELECT replace(printf('%.*c',500,'a'),'a','abc')"); CodeOf(err) != TOOBIG {
		t.Fatal(err)
	}
}

// TestLinearFunctionsAreFast gives them what takes SQLite's own minutes to hours.
func TestLinearFunctionsAreFast(t *testing.T) {
	c, _ := open(t, bridged)
	if err := c.UseLinearFunctions(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for _, q := range []string{
		"SELECT instr(printf('%.*c',4000000,'a'), printf('%.*c',2000000,'a')||'b')",
		"SELECT length(replace(printf('%.*c',4000000,'a'), printf('%.*c',2000000,'a')||'b','c'))",
		"SELECT length(trim(printf('%.*c',4000000,'a'), printf('%.*c',1000000,'b')||'a'))",
		"SELECT length(rtrim(replace(printf('%.*c',1000000,'a'),'a','é'), replace(printf('%.*c',300000,'b'),'b','ä')||'é'))",
		"SELECT unhex(printf('%.*c',3000000,'-'), printf('%.*c',1000000,'+')||'-')",
	} {
		mustDump(t, c, q)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	for range 5000 {
		hay := make([]byte, rng.IntN(300))
		for i := range hay {
			hay[i] = byte("ab"[rng.IntN(2)])
		}
		needle := make([]byte, shortNeedle+1+rng.IntN(20))
		for i := range needle {
			needle[i] = byte("ab"[rng.IntN(2)])
		}
		if rng.IntN(2) == 0 && len(hay) > 60 {
			i := rng.IntN(len(hay) - 50)
			needle = hay[i : i+40]
		}
		if got, want := newSearch(needle).find(hay), bytes.Index(hay, needle); got != want {
			t.Fatalf("find %s in %s: %d, want %d", needle, hay, got, want)
		}
	}
}
