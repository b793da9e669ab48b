-- Counts a request in its window.
-- KEYS: the window
-- ARGV: how long it is, in seconds
local count = redis.call('INCR', KEYS[1])
if count == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return count
