-- Users whom no node has any more leave the set of all users.
-- KEYS: the set of all users
-- ARGV: cursor, how many to look at, about, what the keys of users begin with
local found = redis.call('SSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local gone = 0
for _, user in ipairs(found[2]) do
  if redis.call('EXISTS', ARGV[3] .. user) == 0 then
    gone = gone + redis.call('SREM', KEYS[1], user)
  end
end
return {found[1], gone}
