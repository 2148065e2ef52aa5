package kernel

import "testing"

func TestOpenLoadsEveryProgram(t *testing.T) {
	newTestEnv(t)
}
