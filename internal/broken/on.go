//go:build facetd_broken

package broken

import (
	_ "embed"
	"fmt"
	"os"
	"strings"
)

// Built says whether rules can be broken in this binary.
const Built = true

//go:embed broken.go
var list string // of all switches: a name that is not in it breaks nothing

var chosen = choose(os.Getenv("FACETD_BREAK"))

func choose(name string) Switch {
	if name != "" && !strings.Contains(list, fmt.Sprintf(" Switch = %q\n", name)) {
		panic(fmt.Sprintf("FACETD_BREAK: no rule is broken by %q", name))
	}
	return Switch(name)
}

// init says it in every binary, whatever that does with its log.
func init() { fmt.Fprintln(os.Stderr, Warning()) }

// Is reports whether this process is to break a rule that way.
func Is(s Switch) bool { return s == chosen }

// Warning says what is broken in this process, "" for nothing.
func Warning() string {
	if chosen == "" {
		return "BROKEN BUILD: made with the tag facetd_broken, to test the tests; nothing is broken in this process"
	}
	return fmt.Sprintf("BROKEN ON PURPOSE (%s): this process breaks an ownership rule and will lose or falsify data; it is to test the tests", chosen)
}
