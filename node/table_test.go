package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
)

// TestPlacementError: what a client hears when the table cannot be changed.
func TestPlacementError(t *testing.T) {
	full := fmt.Errorf("propose: %w", consensus.ErrFull)
	for _, err := range []error{full, errors.Join(context.DeadlineExceeded, full)} {
		if told := placementError(err); !errors.Is(told, facet.ErrDiskFull) || !strings.Contains(told.Error(), "make room") {
			t.Errorf("%v is told as %v", err, told)
		}
	}
	if told := placementError(consensus.ErrNotLeader); !errors.Is(told, facet.ErrUnavailable) {
		t.Errorf("nobody leads: %v", told)
	}
}
