package node

import (
	"testing"

	"github.com/facetd/facetd/placement"
)

func TestGenerationDue(t *testing.T) {
	table := placement.NewTable()
	for _, c := range []struct {
		log uint32
		due bool
	}{{0, false}, {1, true}, {1, false}, {5, true}, {4, false}, {1 << 16, false}} {
		cmd, due, err := generationDue(table, c.log)
		if due != c.due || (err != nil) != (c.log == 1<<16) {
			t.Fatalf("generation %d: %v, %v", c.log, due, err)
		}
		if due {
			if _, err := table.ApplyCommands(table.Applied()+1, cmd); err != nil {
				t.Fatal(err)
			}
		}
	}
}
