-- A node has a user no more.
-- KEYS: the set of nodes, the set of all users
-- ARGV: node, user
redis.call('SREM', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[2])
end
return 1
