package placement

import (
	"fmt"
	"math/rand/v2"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// Fixtures: ids that are easy to read and the same in every run.

func storeID(n byte) cluster.StoreID { return cluster.StoreID{0: 0x50, 15: n} }
func bootID(n byte) cluster.BootID   { return cluster.BootID{0: 0xb0, 15: n} }

func incarnation(n uint32) facet.Incarnation {
	return facet.Incarnation{0: 0x1c, 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
}

func name(tenant, f string) facet.Name { return facet.Name{Tenant: facet.Tenant(tenant), Facet: f} }

func mustSet(list ...Member) Set {
	s, err := NewSet(list...)
	if err != nil {
		panic(err)
	}
	return s
}

func register(node string, n byte) RegisterNode {
	return RegisterNode{Node: cluster.NodeID(node), Store: storeID(n), Boot: bootID(n), Machine: cluster.MachineID{15: n},
		API: node + ":7400", Peer: node + ":7401", Zone: "z" + node, Version: "1." + node}
}

func owner(node string, n byte) Owner { return Owner{cluster.NodeID(node), bootID(n)} }

func lineage(of uint32, lossy bool) facet.Lineage {
	at := facet.Position{Epoch: 7, Seq: facet.Seq(of), Sum: facet.Sum{Hi: 8, Lo: 9}}
	return facet.Lineage{Source: incarnation(of), At: at, Lossy: lossy}
}

func setOf(node string, n byte) Set { return mustSet(Member{cluster.NodeID(node), storeID(n)}) }

// randomChange draws a change of settings. Freezes are seldom, and seldom long.
func randomChange(rng *rand.Rand, tenant facet.Tenant) Command {
	c := ChangeTenant{Tenant: tenant, Fields: facet.FieldFreeze}
	set := &c.Settings
	if rng.IntN(3) == 0 {
		c.Tenant, c.Fields = "", 0
	} else if rng.IntN(4) == 0 {
		set.Freeze = facet.Freeze(1 + rng.IntN(2))
	}
	if rng.IntN(2) == 0 || c.Fields == 0 {
		c.Fields |= facet.FieldOf(0)
		if set.Limits.Facets = uint64(rng.IntN(7)); set.Limits.Facets == 6 {
			set.Limits.Facets = facet.NoLimit
		}
	}
	if rng.IntN(2) == 0 {
		c.Fields |= facet.FieldOf(7)
		set.Limits.MemoryBytes = uint64(rng.IntN(3))
	}
	return c
}

// randomCommand draws a command over a universe so small that commands meet.
func randomCommand(rng *rand.Rand) Command {
	const nodes, boots, names, ids = 3, 3, 6, 24
	node := func() string {
		if rng.IntN(25) == 0 {
			return "n9" // never registered
		}
		return fmt.Sprintf("n%d", 1+rng.IntN(nodes))
	}
	id := func() facet.Incarnation { return incarnation(1 + uint32(rng.IntN(ids))) }
	boot := func() byte { return byte(1 + rng.IntN(boots)) }
	nm := func() facet.Name {
		return name([]string{"acme", "bolt"}[rng.IntN(2)], fmt.Sprintf("f%d", rng.IntN(names)))
	}
	epoch := func() facet.Epoch { return facet.Epoch(1 + rng.IntN(4)) }
	set := func() Set {
		var list []Member
		for n := byte(1); n <= nodes; n++ {
			if rng.IntN(2) == 0 {
				store := n
				if rng.IntN(20) == 0 {
					store += 100
				}
				list = append(list, Member{cluster.NodeID(fmt.Sprintf("n%d", n)), storeID(store)})
			}
		}
		if len(list) == 0 {
			list = append(list, Member{"n1", storeID(1)})
		}
		return mustSet(list...)
	}
	switch k := rng.IntN(100); {
	case k < 8:
		n := byte(1 + rng.IntN(nodes))
		r := register(fmt.Sprintf("n%d", n), n)
		r.Boot = bootID(boot())
		r.LeaseOver = rng.IntN(3) == 0
		if rng.IntN(3) == 0 {
			r.Machine = cluster.MachineID{}
		}
		if rng.IntN(12) == 0 {
			r.Store, r.ReplaceStore = storeID(100+n), rng.IntN(2) == 0
		}
		if rng.IntN(30) == 0 {
			r.Store = storeID(byte(1 + rng.IntN(nodes)))
		}
		return r
	case k < 33:
		c := Create{Name: nm(), Incarnation: id(), Owner: owner(node(), boot()), Set: set(), Detached: rng.IntN(4) == 0, Active: rng.IntN(2) == 0}
		if rng.IntN(3) == 0 {
			c.Lineage = lineage(uint32(1+rng.IntN(ids)), rng.IntN(2) == 0)
		}
		return c
	case k < 50:
		c := Acquire{Incarnation: id(), Owner: owner(node(), boot()), Expected: epoch()}
		if rng.IntN(2) == 0 {
			c.Set = set()
		}
		if rng.IntN(2) == 0 {
			c.Released = bootID(boot())
		}
		return c
	case k < 67:
		return Activate{Incarnation: id(), Epoch: epoch(), Boot: bootID(boot())}
	case k < 73:
		return Release{Incarnation: id(), Epoch: epoch(), Boot: bootID(boot())}
	case k < 79:
		return Delete{Incarnation: id(), Expected: facet.Epoch(rng.IntN(4))}
	case k < 85:
		return Tomb{Incarnation: id(), Epoch: epoch()}
	case k < 93:
		c := Bind{Name: nm(), New: id(), OldEpoch: epoch(), Unserved: rng.IntN(2) == 0}
		if rng.IntN(2) == 0 {
			c.Old = id()
		}
		return c
	case k < 94:
		return SetClusterID{cluster.ID{15: byte(1 + rng.IntN(2))}}
	case k < 95:
		return SetTenantLimits{Tenant: nm().Tenant, Limits: facet.TenantLimits{Facets: uint64(rng.IntN(5))}}
	case k < 97:
		return randomChange(rng, nm().Tenant)
	}
	switch rng.IntN(40) {
	case 0, 1:
		return RaiseGeneration{uint16(rng.IntN(3))}
	case 2:
		return RaiseGeneration{0}
	case 3:
		return Renew{}
	case 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16:
		return SetNode{Node: cluster.NodeID(node()), State: NodeState(rng.IntN(3))}
	case 17, 18, 19, 20, 21, 22:
		return RemoveNode{Node: cluster.NodeID(node())}
	}
	return Pin{Incarnation: id(), Pinned: rng.IntN(3) > 0}
}
