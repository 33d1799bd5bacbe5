package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/facetd/facetd/internal/disk"
)

// TestKnown: the file that tells where the others were is a hint, whatever is in it.
func TestKnown(t *testing.T) {
	fsys := disk.NewMem()
	n := &Node{cfg: Config{Platform: &Platform{FS: fsys}}}
	if list := n.known(); list != nil {
		t.Errorf("without a file: %v", list)
	}
	for _, x := range []struct {
		content string
		want    []string
	}{
		{"10.0.0.2:7402\n[fd00::1]:7402\n", []string{"10.0.0.2:7402", "[fd00::1]:7402"}},
		{"10.0.0.2:7402\nhost:7402\n\x00\xff\n10.0.0.3:99999\n10.0.0.4:1", []string{"10.0.0.2:7402", "10.0.0.4:1"}},
		{"", nil},
		{strings.Repeat("10.0.0.2:7402\n", 1000), nil},
	} {
		if err := replaceFile(fsys, knownFile, []byte(x.content)); err != nil {
			t.Fatal(err)
		}
		var want []netip.AddrPort
		for _, a := range x.want {
			want = append(want, netip.MustParseAddrPort(a))
		}
		if list := n.known(); !slices.Equal(list, want) {
			t.Errorf("%.40q: %v, want %v", x.content, list, want)
		}
	}
}
