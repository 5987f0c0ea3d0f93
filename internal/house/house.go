// Package house holds the rules about who may import whom, as tests.
package house
