package replica

import "fmt"

// Health says how far a store's copy of a facet can be believed.
type Health uint8

const (
	// Healthy: nothing is known against it.
	Healthy Health = iota
	// Uncertain: the last batch of the log was lost and may have held acknowledged
	// entries. The copy fences, its tail says nothing (rule R19).
	Uncertain
	// Holed: acknowledged records are lost. The copy fences; it is not served and
	// takes no entries until a snapshot has replaced it.
	Holed
	// Diverged: a checksum did not match (rule R51). As Holed.
	Diverged
)

func (h Health) String() string {
	switch h {
	case Healthy:
		return "ok"
	case Uncertain:
		return "uncertain"
	case Holed:
		return "holed"
	case Diverged:
		return "diverged"
	}
	return fmt.Sprintf("health %d", uint8(h))
}

// broken reports whether the copy must not be served or added to.
func (h Health) broken() bool { return h >= Holed }
