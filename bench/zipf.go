package bench

import (
	"math"
	"math/rand/v2"
)

// zipf chooses among n things so that number k is chosen in proportion to
// 1/(k+1)^theta, for 0 < theta < 1: the generator of Gray and others, "Quickly
// generating billion-record synthetic databases" (SIGMOD 1994), which YCSB uses as
// well. Package math/rand has one for exponents above 1 only. It is read-only, and
// used by many goroutines with a random source each.
type zipf struct {
	n                       int
	theta, alpha, zeta, eta float64
}

func newZipf(n int, theta float64) *zipf {
	z := &zipf{n: n, theta: theta, alpha: 1 / (1 - theta)}
	zeta2 := 0.0
	for i := 1; i <= n; i++ {
		z.zeta += 1 / math.Pow(float64(i), theta)
		if i <= 2 {
			zeta2 = z.zeta
		}
	}
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - zeta2/z.zeta)
	return z
}

func (z *zipf) next(rng *rand.Rand) int {
	u := rng.Float64()
	switch uz := u * z.zeta; {
	case uz < 1 || z.n == 1:
		return 0
	case uz < 1+math.Pow(0.5, z.theta) || z.n == 2:
		return 1
	}
	return min(z.n-1, int(float64(z.n)*math.Pow(z.eta*u-z.eta+1, z.alpha)))
}
