// Package clouds tries the farm against the drivers of real clouds, as tests: what one process may not import, a driver and
// the farm, meets here.
package clouds
